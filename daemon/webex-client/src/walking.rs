//! Walking through the pages of a list.

use callvault_webex::{PageAnswer, Step, Walk, WalkError};

use crate::{Access, Client, Fault, Outside};

/// Longest page of a list, in bytes: 500 call detail records have about two million.
const PAGE_BYTES_MAX: usize = 32 << 20;

impl Client {
    /// Asks for the list at `first`, page by page, each handed to `take`. How many requests it took.
    ///
    /// # Errors
    /// Where not all of it was had; what was handed over by then is not all of it.
    pub(crate) fn walk(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        first: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), &'static str>,
    ) -> Result<u64, Fault> {
        let (mut walk, mut url, mut requests) = (Walk::new(first), first.to_owned(), 0);
        let (mut is_refused, mut unreachable) = (false, None);
        loop {
            if (outside.stopping)() {
                return Err(Fault::Stopping);
            }
            let token = self.token(access, outside)?;
            requests += 1;
            let fetched = match self.web.get(&url, Some(&token), PAGE_BYTES_MAX, outside.stopping).map_err(Fault::from)
            {
                Ok(fetched) => Some(fetched),
                Err(Fault::Unreachable(text)) => {
                    unreachable = Some(text);
                    None
                }
                Err(fault) => return Err(fault),
            };
            let answer = fetched.as_ref().map_or_else(PageAnswer::default, |fetched| PageAnswer {
                status: Some(fetched.status),
                link: fetched.link.as_deref(),
                retry_after: fetched.retry_after.as_deref(),
            });
            if answer.status == Some(401) {
                access.refused();
                if is_refused {
                    return Err(access.dead().map_or(Fault::Walk(WalkError::Unauthorised), Fault::Dead));
                }
                // Another token is had, and this page asked for with it.
                is_refused = true;
                continue;
            }
            let step = walk.answered(answer);
            if let (Step::Get(_) | Step::Done, Some(fetched)) = (&step, &fetched) {
                access.accepted();
                is_refused = false;
                take(&fetched.body).map_err(Fault::Form)?;
            }
            match step {
                Step::Get(next) => url = next,
                Step::Done => return Ok(requests),
                Step::Wait(ms) if !(outside.pause)(ms) => return Err(Fault::Stopping),
                Step::Wait(_) => {}
                Step::Failed(error) => {
                    let text = unreachable.filter(|_| error == WalkError::Unavailable && fetched.is_none());
                    return Err(text.map_or(Fault::Walk(error), Fault::Unreachable));
                }
            }
        }
    }
}
