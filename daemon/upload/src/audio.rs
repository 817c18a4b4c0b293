//! The audio of a recording, counted and hashed before it is sent.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use sha2::Sha256;

use crate::Trouble;

/// What is no longer than this stays in memory between hashing and sending, 16 MiB: about an hour of a call. What is longer is made
/// twice. Each delivery under way may hold as much.
pub const KEPT_BYTES_MAX: usize = 16 << 20;

/// The longest audio that is delivered, 4 GiB: a week of a call, and less than what one PUT may carry anywhere.
pub const AUDIO_BYTES_MAX: u64 = 4 << 30;

/// Read at once.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024;

/// Something that can be read from its beginning as often as needed, and always gives the same bytes.
pub trait Audio: Send + Sync {
    /// From the beginning.
    ///
    /// # Errors
    /// [`Trouble::Audio`], [`Trouble::Gone`].
    fn open(&self) -> Result<Box<dyn Read + Send>, Trouble>;
}

/// What is known of audio once it was read through: its length and hashes, and, where it is short, itself. Around it there may be a
/// frame (the parts of a multipart body before and behind it).
pub struct Prepared {
    /// Length of the audio.
    pub bytes: u64,
    /// MD5 of the audio.
    pub md5: [u8; 16],
    /// SHA-256 of the audio.
    pub sha256: [u8; 32],
    kept: Option<Bytes>,
}

impl Prepared {
    /// Reads audio through; keeps it when it is no longer than `kept_max`.
    ///
    /// # Errors
    /// What opening gives; [`Trouble::Audio`] when it breaks off, is empty, or is longer than [`AUDIO_BYTES_MAX`]; [`Trouble::Stopping`].
    pub fn of(audio: &dyn Audio, kept_max: usize, stopping: &dyn Fn() -> bool) -> Result<Self, Trouble> {
        let mut reader = audio.open()?;
        let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
        let mut kept = Some(Vec::new());
        let mut bytes = 0_u64;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            if stopping() {
                return Err(Trouble::Stopping);
            }
            let count = read(&mut *reader, &mut block)?;
            if count == 0 {
                break;
            }
            bytes = bytes.saturating_add(count as u64);
            md5.update(&block[..count]);
            sha256.update(&block[..count]);
            kept = kept.filter(|kept| kept.len() + count <= kept_max).map(|mut kept| {
                kept.extend_from_slice(&block[..count]);
                kept
            });
            if bytes > AUDIO_BYTES_MAX {
                let text = format!("render the audio: it is longer than {} MiB", AUDIO_BYTES_MAX >> 20);
                return Err(Trouble::Audio { permanent: true, away: false, text });
            }
        }
        if bytes == 0 {
            let text = "render the audio: there is nothing in it".to_owned();
            return Err(Trouble::Audio { permanent: true, away: false, text });
        }
        Ok(Self { bytes, md5: md5.finalize().into(), sha256: sha256.finalize().into(), kept: kept.map(Bytes::from) })
    }

    /// The MD5 as `contentMd5` and `Content-MD5` have it.
    pub fn md5_base64(&self) -> String {
        STANDARD.encode(self.md5)
    }

    /// The SHA-256 in hexadecimal.
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }

    /// The audio itself where it was kept.
    pub(crate) fn kept(&self) -> Option<&Bytes> {
        self.kept.as_ref()
    }

    /// Gives the audio out block by block, again. The last block comes only when all of it is what was hashed.
    pub(crate) fn replay(
        bytes: u64,
        sha256: &[u8; 32],
        reader: &mut dyn Read,
        mut each: impl FnMut(Bytes) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let differs = || Trouble::Recording("send the audio: rendered a second time it is not the same".to_owned());
        let mut hash = Sha256::new();
        let (mut seen, mut held) = (0_u64, None);
        loop {
            let mut block = vec![0; BLOCK_BYTES];
            let count = read(reader, &mut block)?;
            if count == 0 {
                break;
            }
            block.truncate(count);
            seen = seen.saturating_add(count as u64);
            hash.update(&block);
            if seen > bytes {
                return Err(differs());
            }
            if let Some(before) = held.replace(Bytes::from(block)) {
                each(before)?;
            }
        }
        if seen != bytes || <[u8; 32]>::from(hash.finalize()) != *sha256 {
            return Err(differs());
        }
        held.map_or(Ok(()), each)
    }
}

pub(crate) fn read(reader: &mut dyn Read, block: &mut [u8]) -> Result<usize, Trouble> {
    reader.read(block).map_err(|error| Trouble::Audio {
        permanent: false,
        away: false,
        text: format!("render the audio: {error}"),
    })
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;
    use std::sync::Mutex;

    use super::*;

    /// Audio that gives these bytes, one after the other opening.
    pub(crate) struct Given(pub(crate) Mutex<Vec<Vec<u8>>>);

    impl Given {
        pub(crate) fn always(bytes: &[u8]) -> Self {
            Self(Mutex::new(vec![bytes.to_vec()]))
        }
    }

    impl Audio for Given {
        fn open(&self) -> Result<Box<dyn Read + Send>, Trouble> {
            let mut given = self.0.lock().unwrap();
            let next = if given.len() > 1 { given.remove(0) } else { given[0].clone() };
            Ok(Box::new(Cursor::new(next)))
        }
    }

    fn prepared(bytes: &[u8], kept_max: usize) -> Result<Prepared, Trouble> {
        Prepared::of(&Given::always(bytes), kept_max, &|| false)
    }

    #[test]
    fn it_is_hashed_and_kept_where_it_is_short() {
        let known = prepared(b"abc", 3).unwrap();
        assert_eq!(known.md5_base64(), "kAFQmDzST7DWlj99KOF/cg==");
        assert_eq!(known.sha256_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((known.bytes, known.kept().map(|kept| &kept[..])), (3, Some(&b"abc"[..])));
        assert!(prepared(b"abc", 2).unwrap().kept().is_none());
        assert!(matches!(prepared(b"", 3), Err(Trouble::Audio { permanent: true, .. })));
        let stopped = Prepared::of(&Given::always(b"abc"), 3, &|| true);
        assert!(matches!(stopped, Err(Trouble::Stopping)));
    }

    #[test]
    fn what_differs_the_second_time_is_never_complete() {
        #[track_caller]
        fn check(first: &[u8], second: &[u8], is_same: bool) {
            let known = prepared(first, 0).unwrap();
            let mut sent = Vec::new();
            let result = Prepared::replay(known.bytes, &known.sha256, &mut Cursor::new(second), |block| {
                sent.extend_from_slice(&block);
                Ok(())
            });
            assert_eq!(result.is_ok(), is_same);
            assert_eq!(sent.len() == first.len(), is_same);
        }
        let long: Vec<u8> = (0..3 * BLOCK_BYTES + 5).map(|n| n.to_le_bytes()[0]).collect();
        let mut other = long.clone();
        other[BLOCK_BYTES / 2] ^= 1;
        check(&long, &long, true);
        check(&long, &other, false);
        check(&long, &long[..long.len() - 1], false);
        check(&long, &[&long[..], b"x"].concat(), false);
        check(b"abc", b"abc", true);
        check(b"abc", b"abd", false);
        check(b"abc", b"", false);
    }
}
