//! Whether what is set for Webex goes together.

use std::collections::BTreeMap;

use callvault_webex::Rules;
use jiff::civil::Time;

use crate::Config;
use crate::cross_check::Findings;
use crate::deliveries_check::{proxy, url};
use crate::schema::{Webex, WebexRules};

impl Webex {
    /// The time of the day at which users are synchronised; none where they are not by themselves.
    #[must_use]
    pub fn sync_time(&self) -> Option<Time> {
        let (hour, minute) = self.sync_at.trim().split_once(':')?;
        let is_plain = [hour, minute].iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()));
        let (hour, minute) = (hour.parse().ok()?, minute.parse().ok()?);
        Time::new(hour, minute, 0, 0).ok().filter(|_| is_plain)
    }
}

impl WebexRules {
    /// The rules, by field.
    ///
    /// # Errors
    /// For each that is wrong its field and a sentence with what is right.
    pub fn rules(&self) -> Result<Rules, Vec<String>> {
        Rules::read(&self.texts().into_iter().map(|(_, field, text)| (field.to_owned(), text.clone())).collect())
    }

    fn texts(&self) -> [(&'static str, &'static str, &String); 20] {
        macro_rules! texts {
            ($($field:ident),*) => { [$((concat!("webex_rules.", stringify!($field)), stringify!($field), &self.$field)),*] };
        }
        texts![
            user_name,
            domain,
            first_name,
            last_name,
            pin,
            initial_password,
            preferred_language,
            first_extension,
            extension_alias,
            device_name,
            preferred_device_name,
            email,
            department,
            cost_centre,
            office_location,
            presence_uri,
            microsoft_uri,
            webex_uri,
            picture,
            recording_mode
        ]
    }
}

/// What makes the settings unusable, also of what is switched off: it is told before somebody switches it on.
pub(crate) fn errors(config: &Config, findings: &mut Findings<'_>) {
    let webex = &config.webex;
    for (key, value, what) in [
        ("webex.url", &webex.url, "where Webex is"),
        ("webex.client_id", &webex.client_id, "the id of the integration"),
        ("webex.redirect_url", &webex.redirect_url, "where the browser comes back to, as it is registered"),
        ("webex.scopes", &webex.scopes, "what is to be asked for"),
    ] {
        if webex.enabled && value.trim().is_empty() {
            findings
                .refuse(&[key, "webex.enabled"], format!("{key} is empty, but webex.enabled is true; write {what}"));
        }
    }
    if webex.enabled && webex.records && webex.records_url.is_empty() {
        let message = "webex.records_url is empty, but webex.records is true; write where call detail records are";
        findings.refuse(&["webex.records_url", "webex.records"], message);
    }
    url("webex.url", &webex.url, findings);
    url("webex.records_url", &webex.records_url, findings);
    url("webex.redirect_url", &webex.redirect_url, findings);
    proxy("webex.proxy", &webex.proxy, findings);
    if webex.proxy_credentials.is_some() && webex.proxy.is_empty() {
        findings.refuse(&["webex.proxy_credentials"], "is set, but webex.proxy is empty; name the proxy");
    }
    if !webex.sync_at.trim().is_empty() && webex.sync_time().is_none() {
        findings.refuse(&["webex.sync_at"], "is no time of the day; write hours and minutes, \"03:30\", or \"\"");
    }
    for (key, field, text) in config.webex_rules.texts() {
        let one = BTreeMap::from([(field.to_owned(), text.clone())]);
        for message in Rules::read(&one).err().into_iter().flatten() {
            findings.refuse(&[key], message);
        }
    }
}

/// What is allowed but probably not meant.
pub(crate) fn remarks(config: &Config, remarks: &mut Vec<String>) {
    if !config.webex.enabled && !config.webex.client_id.is_empty() {
        remarks.push("webex.client_id is set, but webex.enabled is false: users are not synchronised".into());
    }
    if config.webex.workspaces && !config.webex.scopes.contains("workspaces_read") {
        remarks.push("webex.workspaces is true, but webex.scopes lacks spark-admin:workspaces_read: Webex will refuse the workspaces".into());
    }
    if config.webex.records && !config.webex.scopes.contains("calling_cdr_read") {
        remarks.push("webex.records is true, but webex.scopes lacks spark-admin:calling_cdr_read: Webex will refuse the call detail records".into());
    }
}
