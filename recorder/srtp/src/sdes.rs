//! Keys in the session description: the crypto attribute (RFC 4568), read, chosen from and answered.
//!
//! # What is supported
//!
//! The suites of [`Suite`]; one key, or several told apart by MKI; lifetimes; and of the session parameters:
//!
//! | parameter | what becomes of it |
//! |---|---|
//! | `UNENCRYPTED_SRTCP` | agreed to and echoed: our reports are then authenticated and not encrypted. Some gateways offer nothing else |
//! | `UNENCRYPTED_SRTP` | agreed to where no attribute of the offer encrypts, and only in counter mode: GCM knows it for RTCP alone |
//! | `WSH` | passed over: it is a hint, and our window is larger than what is hinted |
//! | `UNAUTHENTICATED_SRTP` | the attribute is not chosen: nothing would tell a genuine packet from another |
//! | `KDR` | not chosen, unless it is 0: keys derived again and again were never of use to anybody |
//! | `FEC_ORDER`, `FEC_KEY` | not chosen: no forward error correction is taken |
//! | `-…` | passed over, as RFC 4568 section 6.3.7 asks |
//! | others | not chosen, as it asks as well |
//!
//! An attribute that is not chosen is no error. Where none of a media line's can be chosen, the caller decides what becomes of the line.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use callvault_seal::Secret;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::suite::MASTER_BYTES_MAX;
use crate::{MasterKey, SrtpError, Suite};

/// Longest attribute read. With [`KEYS_MAX`] keys of the longest suite, lifetime and MKI it has about 800 bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 4_096;

/// Most keys of one attribute. More than one is seldom seen, and each costs an expanded key schedule.
pub const KEYS_MAX: usize = 4;

/// Longest MKI (RFC 4568 section 6.1).
pub const MKI_BYTES_MAX: usize = 128;

/// Some clients leave the padding away, some set bits that mean nothing.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A key as an attribute gives it.
#[derive(Debug)]
pub struct KeyParam {
    /// Key and salt.
    pub key: MasterKey,
    /// How many packets the sender means to secure with it. None stands for all that the suite allows.
    pub lifetime_packets: Option<u64>,
    /// The master key identifier that packets carry, at most [`MKI_BYTES_MAX`]; empty where they carry none.
    pub mki: Vec<u8>,
}

impl KeyParam {
    /// A key without lifetime and MKI.
    pub fn new(key: MasterKey) -> Self {
        Self { key, lifetime_packets: None, mki: Vec::new() }
    }
}

/// The session parameters that both sides agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionParams {
    /// RTP payloads are authenticated only.
    pub unencrypted_srtp: bool,
    /// RTCP is authenticated only.
    pub unencrypted_srtcp: bool,
}

/// Why an attribute that was understood is not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// The suite.
    Suite,
    /// The keys are not in the attribute itself (`inline:`).
    KeyMethod,
    /// `KDR`.
    KeyDerivationRate,
    /// `UNAUTHENTICATED_SRTP`.
    Unauthenticated,
    /// `UNENCRYPTED_SRTP` with GCM.
    UnencryptedGcm,
    /// `FEC_ORDER` or `FEC_KEY`.
    ForwardErrorCorrection,
    /// A parameter that is not known, and not marked as optional.
    Parameter,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suite => "its suite is not supported",
            Self::KeyMethod => "its key is not given inline",
            Self::KeyDerivationRate => "it asks for a key derivation rate (KDR)",
            Self::Unauthenticated => "it asks for packets without authentication (UNAUTHENTICATED_SRTP)",
            Self::UnencryptedGcm => "it asks for GCM without encryption (UNENCRYPTED_SRTP)",
            Self::ForwardErrorCorrection => "it asks for forward error correction (FEC_ORDER, FEC_KEY)",
            Self::Parameter => "it asks for a session parameter that is not known",
        })
    }
}

/// A crypto attribute, offered or answered. Its `Debug` shows no keys.
#[derive(Debug)]
pub struct CryptoAttribute {
    /// What the answer names it by; at most nine digits.
    pub tag: u32,
    /// The suite; None where it is not supported.
    pub suite: Option<Suite>,
    /// The keys, one at least, unless the attribute is not supported. Several have MKIs of one length, each another.
    pub keys: Vec<KeyParam>,
    /// The parameters.
    pub params: SessionParams,
    /// Why it cannot be chosen, where it cannot.
    pub unsupported: Option<Unsupported>,
}

/// Reads the value of a crypto attribute: what follows `a=crypto:`.
///
/// # Errors
/// [`SrtpError::AttributeMalformed`] or [`SrtpError::KeyLength`] where it does not keep to the grammar. What is grammatical and not
/// supported is no error, see [`CryptoAttribute::unsupported`].
pub fn parse(value: &str) -> Result<CryptoAttribute, SrtpError> {
    if value.len() > ATTRIBUTE_BYTES_MAX {
        return Err(malformed("it is too long"));
    }
    let mut words = value.split_ascii_whitespace();
    let tag = words.next().unwrap_or_default();
    if tag.is_empty() || tag.len() > 9 || !tag.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed("it does not begin with a tag of one to nine digits"));
    }
    let tag = tag.parse().map_err(|_| malformed("it does not begin with a tag of one to nine digits"))?;
    let name = words.next().ok_or(malformed("it names no suite"))?;
    let suite = Suite::from_name(name);
    let mut keys = Vec::new();
    let mut unsupported = None;
    let mut rest = words.peekable();
    let mut key_params = 0;
    // A word with a method and a colon is a key; some clients put a space behind the semicolon between two.
    while let Some(word) = rest.next_if(|word| is_key_param(word)) {
        for key_param in word.split(';').filter(|text| !text.is_empty()) {
            key_params += 1;
            match (suite, inline(key_param)) {
                (Some(_), Some(_)) if keys.len() == KEYS_MAX => return Err(malformed("it has too many keys")),
                (Some(suite), Some(text)) => keys.push(parse_key(suite, text)?),
                (None, _) => unsupported = Some(Unsupported::Suite),
                (Some(_), None) => unsupported = Some(Unsupported::KeyMethod),
            }
        }
    }
    if key_params == 0 {
        return Err(malformed("it has no key"));
    }
    check_mkis(&keys)?;
    let mut params = SessionParams::default();
    for word in rest {
        if let Err(reason) = parse_param(word, &mut params) {
            unsupported = unsupported.or(Some(reason));
        }
    }
    if params.unencrypted_srtp && suite.is_some_and(Suite::is_aead) {
        unsupported = unsupported.or(Some(Unsupported::UnencryptedGcm));
    }
    if unsupported.is_some() {
        keys.clear();
    }
    Ok(CryptoAttribute { tag, suite, keys, params, unsupported })
}

/// The attribute to answer: the first that is supported, since the offer is in the client's order of preference (RFC 4568 section
/// 5.1.1); one that leaves the audio unencrypted only where there is no other.
pub fn choose(offered: &[CryptoAttribute]) -> Option<&CryptoAttribute> {
    let supported = || offered.iter().filter(|attribute| attribute.is_supported());
    supported().find(|attribute| !attribute.params.unencrypted_srtp).or_else(|| supported().next())
}

impl CryptoAttribute {
    /// An attribute of our own with a fresh key, for an offer.
    pub fn generate(tag: u32, suite: Suite, rng: &mut dyn CryptoRng) -> Self {
        let keys = vec![KeyParam::new(MasterKey::generate(suite, rng))];
        Self { tag, suite: Some(suite), keys, params: SessionParams::default(), unsupported: None }
    }

    /// Whether it can be chosen.
    pub fn is_supported(&self) -> bool {
        self.unsupported.is_none() && self.suite.is_some() && !self.keys.is_empty()
    }

    /// Our answer to this attribute: its tag, suite and agreed parameters, and a key for what we send.
    ///
    /// The key is `own`, what we answered with before in the dialog, as long as the suite is still the same, so that a later offer does
    /// not change keys that nobody wants to change; else a fresh one from `rng`. It carries no MKI: with one key none is needed.
    ///
    /// # Errors
    /// [`SrtpError::Unsupported`].
    pub fn answer(&self, own: Option<&MasterKey>, rng: &mut dyn CryptoRng) -> Result<Self, SrtpError> {
        let suite = self.suite.filter(|_| self.is_supported()).ok_or(SrtpError::Unsupported)?;
        let key = match own.filter(|own| own.suite() == suite) {
            Some(own) => own.copy(),
            None => MasterKey::generate(suite, rng),
        };
        Ok(Self {
            tag: self.tag,
            suite: Some(suite),
            keys: vec![KeyParam::new(key)],
            params: self.params,
            unsupported: None,
        })
    }

    /// The attribute's value as text: what follows `a=crypto:`. It holds the keys.
    ///
    /// # Errors
    /// [`SrtpError::Unsupported`], where there is nothing to write.
    pub fn to_text(&self) -> Result<Secret<String>, SrtpError> {
        let suite = self.suite.filter(|_| self.is_supported()).ok_or(SrtpError::Unsupported)?;
        // All of the room at once: a string that grows leaves unwiped copies behind.
        let mut text = Secret::new(String::with_capacity(ATTRIBUTE_BYTES_MAX));
        let out = text.expose_mut();
        // Writing to a string does not fail.
        let _ = write!(out, "{} {} ", self.tag, suite.name());
        for (number, key) in self.keys.iter().take(KEYS_MAX).enumerate() {
            out.push_str(if number == 0 { "inline:" } else { ";inline:" });
            STANDARD.encode_string(key.key.expose(), out);
            if let Some(packets) = key.lifetime_packets {
                let _ = match packets.is_power_of_two() {
                    true => write!(out, "|2^{}", packets.trailing_zeros()),
                    false => write!(out, "|{packets}"),
                };
            }
            if let Some(number) = mki_number(&key.mki) {
                let _ = write!(out, "|{number}:{}", key.mki.len());
            }
        }
        for (set, name) in
            [(self.params.unencrypted_srtp, " UNENCRYPTED_SRTP"), (self.params.unencrypted_srtcp, " UNENCRYPTED_SRTCP")]
        {
            if set {
                out.push_str(name);
            }
        }
        Ok(text)
    }
}

/// Whether it begins with a key method and a colon. Session parameters may have a colon further on.
fn is_key_param(word: &str) -> bool {
    let method = word.trim_start_matches(';').split_once(':').map(|(method, _)| method);
    method.is_some_and(|method| {
        method.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic()) && !method.contains('=')
    })
}

fn malformed(what: &'static str) -> SrtpError {
    SrtpError::AttributeMalformed { what }
}

/// What follows `inline:`, the one method that there is for SRTP.
fn inline(key_param: &str) -> Option<&str> {
    let (method, text) = key_param.split_once(':')?;
    method.eq_ignore_ascii_case("inline").then_some(text)
}

/// Key and salt in base64, then lifetime, then MKI; the last two may be missing (RFC 4568 section 6.1).
fn parse_key(suite: Suite, text: &str) -> Result<KeyParam, SrtpError> {
    let mut fields = text.split('|');
    let key = decode_key(suite, fields.next().unwrap_or_default())?;
    let mut lifetime_packets = None;
    let mut mki = Vec::new();
    for field in fields {
        match field.split_once(':') {
            Some((number, bytes)) => mki = parse_mki(number, bytes)?,
            None => lifetime_packets = parse_lifetime(field),
        }
    }
    Ok(KeyParam { key, lifetime_packets, mki })
}

fn decode_key(suite: Suite, encoded: &str) -> Result<MasterKey, SrtpError> {
    let expected = suite.master_bytes();
    // The decoder wants room for whole groups of three bytes.
    let mut room = Secret::new([0_u8; MASTER_BYTES_MAX + 3]);
    if encoded.len() > MASTER_BYTES_MAX.div_ceil(3) * 4 {
        return Err(SrtpError::KeyLength { suite: suite.name(), expected, found: expected + 1 });
    }
    let found = LENIENT
        .decode_slice(encoded, room.expose_mut())
        .map_err(|_| malformed("what follows inline: is not base64"))?;
    MasterKey::from_bytes(suite, room.expose().get(..found).unwrap_or_default())
}

/// `2^20` or a number; what is neither is taken as if it were not there, since more packets than that are taken anyway.
fn parse_lifetime(text: &str) -> Option<u64> {
    let packets = match text.strip_prefix("2^") {
        Some(power) => power.parse().ok().and_then(|power| 1_u64.checked_shl(power))?,
        None => text.parse().ok()?,
    };
    Some(packets).filter(|&packets| packets > 0)
}

fn parse_mki(number: &str, bytes: &str) -> Result<Vec<u8>, SrtpError> {
    let bytes = bytes.parse().ok().filter(|bytes| (1..=MKI_BYTES_MAX).contains(bytes));
    let bytes = bytes.ok_or(malformed("the length of its MKI is not from 1 to 128"))?;
    let number: u128 = number.parse().map_err(|_| malformed("its MKI is no number, or beyond 128 bits"))?;
    let digits = number.to_be_bytes();
    let mut mki = vec![0; bytes];
    let taken = bytes.min(digits.len());
    if digits[..digits.len() - taken].iter().any(|&digit| digit != 0) {
        return Err(malformed("its MKI does not fit into the length that it gives"));
    }
    mki[bytes - taken..].copy_from_slice(&digits[digits.len() - taken..]);
    Ok(mki)
}

/// The number that an MKI of the form that [`parse_mki`] makes stands for.
fn mki_number(mki: &[u8]) -> Option<u128> {
    let significant = mki.len().min(16);
    (!mki.is_empty())
        .then(|| mki[mki.len() - significant..].iter().fold(0, |number, &byte| number << 8 | u128::from(byte)))
}

/// Several keys are told apart by MKIs of one length (RFC 4568 section 6.1).
fn check_mkis(keys: &[KeyParam]) -> Result<(), SrtpError> {
    for (place, key) in keys.iter().enumerate() {
        if keys.len() > 1 && (key.mki.is_empty() || key.mki.len() != keys[0].mki.len()) {
            return Err(malformed("it has several keys without MKIs of one length"));
        }
        if keys[..place].iter().any(|earlier| earlier.mki == key.mki) {
            return Err(malformed("it has the same MKI for two keys"));
        }
    }
    Ok(())
}

fn parse_param(word: &str, params: &mut SessionParams) -> Result<(), Unsupported> {
    let name = word.split('=').next().unwrap_or(word).to_ascii_uppercase();
    match name.as_str() {
        "UNENCRYPTED_SRTP" => params.unencrypted_srtp = true,
        "UNENCRYPTED_SRTCP" => params.unencrypted_srtcp = true,
        "UNAUTHENTICATED_SRTP" => return Err(Unsupported::Unauthenticated),
        "KDR" if word.ends_with("=0") => {}
        "KDR" => return Err(Unsupported::KeyDerivationRate),
        "FEC_ORDER" | "FEC_KEY" => return Err(Unsupported::ForwardErrorCorrection),
        "WSH" => {}
        other if other.starts_with('-') => {}
        _ => return Err(Unsupported::Parameter),
    }
    Ok(())
}
