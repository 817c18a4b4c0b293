//! The types of the values: what operators write, and what the other parts of the appliance get.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use callvault_directory::Pattern;

use crate::macros::choices;
use crate::setting::{Raw, Setting, quantity, quoted, written};

/// Most entries of a list: far above any real setting, so that a broken file cannot make the daemon open a million sockets.
const LIST_ENTRIES_MAX: usize = 256;

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// The units of a size, greatest first. Powers of 1024 only: a disk's "GB" and a program's never agree.
const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Setting for Bytes {
    const SHAPE: &'static str = "a size such as \"64KiB\", \"256MiB\" or \"2GiB\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => quantity(text, &SIZE_UNITS).map(Self).ok_or_else(|| Self::expected(raw)),
            Raw::Integer(number) => Err(format!("a size needs its unit: write \"{number}B\" or \"{number}MiB\"")),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        written(self.0, &SIZE_UNITS)
    }
}

/// The addresses to listen on; may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(pub Vec<SocketAddr>);

impl Setting for Listen {
    const SHAPE: &'static str = "an address with port such as \"0.0.0.0:5060\", or a list of them";

    fn read(raw: &Raw) -> Result<Self, String> {
        let texts = list_of_texts(raw).ok_or_else(|| Self::expected(raw))??;
        let mut addresses = Vec::with_capacity(texts.len());
        for text in texts {
            let address = socket_address(text)?;
            if addresses.contains(&address) {
                return Err(format!("{address} is there twice; remove one"));
            }
            addresses.push(address);
        }
        Ok(Self(addresses))
    }

    fn write(&self) -> String {
        write_list(self.0.iter())
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let hint = match (text.parse::<IpAddr>(), text.parse::<u16>()) {
            (Ok(IpAddr::V4(ip)), _) => format!("write \"{ip}:5060\""),
            (Ok(IpAddr::V6(ip)), _) => format!("write \"[{ip}]:5060\""),
            (_, Ok(port)) => format!("write \"0.0.0.0:{port}\""),
            _ => "write an IP address and a port, \"0.0.0.0:5060\" or \"[::]:5060\" (names are not looked up)".into(),
        };
        format!("\"{}\" is not an address with port; {hint}", text.escape_debug())
    })?;
    if address.port() == 0 {
        return Err(format!("\"{text}\" has port 0, which would be another port at each start; name the port"));
    }
    Ok(address)
}

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// An address in it; bits beyond the prefix do not count.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits of the prefix, 0 to 32 or 128.
    #[must_use]
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Whether the address is in the network. An IPv4 address that arrived on an IPv6 socket (`::ffff:a.b.c.d`) counts
    /// as the IPv4 address that it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, address, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.prefix_bits);
        // A shift by the whole width (prefix 0) would overflow: everything is in the network then.
        (network ^ address).checked_shr(host_bits).unwrap_or(0) == 0
    }

    /// Whether the network is all of IPv4 or all of IPv6.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.prefix_bits == 0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{}\" is not a network; write \"10.0.0.0/8\", \"2001:db8::/32\" or a single address",
                text.escape_debug()
            )
        };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= width).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        let network = Self { address: masked(address, prefix_bits), prefix_bits };
        if network.address != address {
            return Err(format!(
                "\"{text}\" has bits set beyond its prefix; write \"{network}\" for the network or \"{address}\" for the one machine"
            ));
        }
        Ok(network)
    }
}

fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// The networks that calls are accepted from; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerList(pub Vec<Network>);

impl PeerList {
    /// Whether a peer with this address may open sessions here.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Setting for PeerList {
    const SHAPE: &'static str = "a network such as \"10.0.0.0/8\", or a list of them";

    fn read(raw: &Raw) -> Result<Self, String> {
        let texts = list_of_texts(raw).ok_or_else(|| Self::expected(raw))??;
        if texts.is_empty() {
            return Err("an empty list would refuse every call; name the networks your SIPREC clients are in, \"127.0.0.0/8\" at least".into());
        }
        texts.into_iter().map(Network::parse).collect::<Result<_, _>>().map(Self)
    }

    fn write(&self) -> String {
        write_list(self.0.iter())
    }
}

/// A range of UDP ports for RTP and RTCP, both ends included. Starts even and holds at least one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port, even: RTP of the first pair.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl PortRange {
    /// How many pairs of an even port (RTP) and the next one (RTCP) the range holds; at least 1.
    #[must_use]
    pub fn pairs(&self) -> u16 {
        // In 32 bits: 2-65535 holds 65534 ports, one more than fits while adding.
        u16::try_from((u32::from(self.last) - u32::from(self.first)).div_ceil(2)).unwrap_or(u16::MAX)
    }

    /// Whether the port is in the range.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl Setting for PortRange {
    const SHAPE: &'static str = "a range of ports such as \"20000-29999\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        let Raw::Text(text) = raw else {
            return Err(Self::expected(raw));
        };
        let (first, last) = text.split_once('-').ok_or_else(|| Self::expected(raw))?;
        let port = |digits: &str| -> Result<u16, String> {
            match digits.trim().parse::<u32>() {
                Ok(number) => {
                    u16::try_from(number).map_err(|_| format!("{number} is not a port; the greatest is 65535"))
                }
                Err(_) => Err(Self::expected(raw)),
            }
        };
        let (first, last) = (port(first)?, port(last)?);
        if first < 1024 {
            return Err(format!(
                "\"{text}\" begins below 1024, which an unprivileged process may not open; begin at 1024 or above"
            ));
        }
        if first % 2 != 0 {
            return Err(format!(
                "\"{text}\" begins with an odd port; RTP uses even ports: write \"{}-{last}\"",
                first.saturating_add(1)
            ));
        }
        if last <= first {
            return Err(format!("\"{text}\" holds no pair of ports; the second number must be greater than the first"));
        }
        Ok(Self { first, last })
    }

    fn write(&self) -> String {
        quoted(&format!("{}-{}", self.first, self.last))
    }
}

/// Where RTP is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaAddress {
    /// On every address of the machine; the answer names the one at which the call's INVITE arrived.
    Auto,
    /// On this address, which is also the one that answers name.
    Ip(IpAddr),
}

impl Setting for MediaAddress {
    const SHAPE: &'static str = "\"auto\" or an IP address of this machine";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "auto" => Ok(Self::Auto),
            Raw::Text(text) => match text.parse::<IpAddr>() {
                Ok(ip) if ip.is_unspecified() => {
                    Err(format!("{ip} cannot be told to a caller as an address; write \"auto\""))
                }
                Ok(ip) if ip.is_multicast() => {
                    Err(format!("{ip} is a multicast address; write \"auto\" or an address of this machine"))
                }
                Ok(ip) => Ok(Self::Ip(ip)),
                Err(_) => Err(Self::expected(raw)),
            },
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Auto => quoted("auto"),
            Self::Ip(ip) => quoted(&ip.to_string()),
        }
    }
}

/// Where the health and control endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpListen {
    /// On a loopback address.
    Tcp(SocketAddr),
    /// On a Unix socket. Absolute.
    Unix(PathBuf),
}

/// Longest path of a Unix socket on Linux (`sun_path` less its terminating NUL).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Setting for HttpListen {
    const SHAPE: &'static str = "a loopback address with port such as \"127.0.0.1:8088\", or \"unix:PATH\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        let Raw::Text(text) = raw else {
            return Err(Self::expected(raw));
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return PathBuf::read(&Raw::Text(path.into())).map(Self::Unix);
        }
        let address: SocketAddr = text.parse().map_err(|_| Self::expected(raw))?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{address} is reachable from other machines, and this endpoint controls the appliance without TLS; use 127.0.0.1, [::1] or unix:PATH"
            ));
        }
        if address.port() == 0 {
            return Err(format!("\"{text}\" has port 0, which would be another port at each start; name the port"));
        }
        Ok(Self::Tcp(address))
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

impl fmt::Display for HttpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

choices! {
    /// Whether a client must show a certificate.
    pub enum ClientCertificate {
        /// It must.
        Required = "required",
        /// It may, and then the right one.
        Optional = "optional",
    }
    shape "\"required\" or \"optional\""
}

choices! {
    /// Which calls are kept.
    pub enum RecordingMode {
        /// All of them.
        Always = "always",
        /// Those that somebody asks for.
        OnDemand = "on-demand",
    }
    shape "\"always\" or \"on-demand\""
}

choices! {
    /// What becomes of a call of nobody in the directory.
    pub enum UnknownUser {
        /// It is not kept.
        Discard = "discard",
        /// It is kept, for administrators only.
        Keep = "keep",
    }
    shape "\"discard\" or \"keep\""
}

choices! {
    /// Which directions of calls are kept.
    pub enum KeptDirection {
        /// Calls that the user took.
        Incoming = "incoming",
        /// Calls that the user made.
        Outgoing = "outgoing",
        /// All.
        Both = "both",
    }
    shape "\"incoming\", \"outgoing\" or \"both\""
}

choices! {
    /// Which calls are kept by where the other party is.
    pub enum KeptTraffic {
        /// Within the organisation.
        Internal = "internal",
        /// With others.
        External = "external",
        /// All.
        Both = "both",
    }
    shape "\"internal\", \"external\" or \"both\""
}

choices! {
    /// Who may delete by hand, the levels above included.
    pub enum WhoDeletes {
        /// Nobody, administrators included; the setting can be changed.
        Nobody = "nobody",
        /// Nobody, and the setting can never be changed again.
        NobodyIrreversibly = "nobody-irreversibly",
        /// Administrators.
        Administrators = "administrators",
        /// Group supervisors, of what their groups have.
        GroupSupervisors = "group-supervisors",
        /// Users, of what is theirs.
        Users = "users",
    }
    shape "\"nobody\", \"nobody-irreversibly\", \"administrators\", \"group-supervisors\" or \"users\""
}

choices! {
    /// Who may do something, the levels above included.
    pub enum WhoMay {
        /// Nobody, administrators included.
        Nobody = "nobody",
        /// Administrators.
        Administrators = "administrators",
        /// Group supervisors, with what their groups have.
        GroupSupervisors = "group-supervisors",
        /// Users, with what is theirs.
        Users = "users",
    }
    shape "\"nobody\", \"administrators\", \"group-supervisors\" or \"users\""
}

choices! {
    /// What an archive keeps of the audio.
    pub enum ArchiveCodec {
        /// Opus; what came as Opus is passed through untouched.
        Opus = "opus",
        /// Every payload as the wire carried it.
        AsReceived = "as-received",
    }
    shape "\"opus\" or \"as-received\""
}

choices! {
    /// Where the sealed key of an archive is kept.
    pub enum ArchiveKeys {
        /// In the archive itself, which then stands alone.
        File = "file",
        /// In the catalogue only.
        Catalogue = "catalogue",
    }
    shape "\"file\" or \"catalogue\""
}

choices! {
    /// The least important kind of event that is logged.
    pub enum LogLevel {
        /// Only what needs someone to act.
        Error = "error",
        /// Also what may become a problem.
        Warn = "warn",
        /// Also what the appliance does, a few lines a call.
        Info = "info",
        /// Also how it does it.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
    shape "\"error\", \"warn\", \"info\", \"debug\" or \"trace\""
}

/// The bit rate of Opus encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitRate {
    /// What the encoder finds right for the rate of the audio.
    Auto,
    /// Bits a second for each track.
    BitsPerSecond(u32),
}

impl Setting for BitRate {
    const SHAPE: &'static str = "\"auto\" or bits a second from 6000 to 128000";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "auto" => Ok(Self::Auto),
            _ => match u32::read(raw) {
                Ok(rate) if (6_000..=128_000).contains(&rate) => Ok(Self::BitsPerSecond(rate)),
                _ => Err(Self::expected(raw)),
            },
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Auto => quoted("auto"),
            Self::BitsPerSecond(rate) => rate.to_string(),
        }
    }
}

/// Public keys in their text form, `callvault-public-1:` and 44 characters of base64. Their form is checked here, what
/// they hold where they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeyTexts(pub Vec<String>);

/// Escrow keys at most: an archive has room for ten sealed keys, and the appliance's own is one.
const ESCROW_KEYS_MAX: usize = 9;

impl Setting for PublicKeyTexts {
    const SHAPE: &'static str = "a public key such as \"callvault-public-1:…\", or a list of them";

    fn read(raw: &Raw) -> Result<Self, String> {
        let texts = list_of_texts(raw).ok_or_else(|| Self::expected(raw))??;
        if texts.len() > ESCROW_KEYS_MAX {
            return Err(format!("at most {ESCROW_KEYS_MAX} keys beside the appliance's own fit into a recording"));
        }
        for text in &texts {
            if text.starts_with("callvault-private") {
                // Not repeated in the message: it would end up in a log.
                return Err("this is a private key; replace it by its public key, and treat the private one as lost to whoever could read this file".into());
            }
            let base64 = text.strip_prefix("callvault-public-1:").unwrap_or_default();
            let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
            // 32 bytes are 43 characters and one `=`.
            if !(base64.len() == 44 && base64.ends_with('=') && base64.bytes().take(43).all(alphabet)) {
                return Err("not a public key; write it as `callvaultctl keys show` prints it: \"callvault-public-1:\" and 44 characters".into());
            }
        }
        Ok(Self(texts.into_iter().map(str::to_owned).collect()))
    }

    fn write(&self) -> String {
        write_list(self.0.iter())
    }
}

/// Words that mean something to a peer; may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

/// Longest word: longer than any number or address.
const TEXT_CHARS_MAX: usize = 256;

impl Setting for Texts {
    const SHAPE: &'static str = "a text, or a list of them";

    fn read(raw: &Raw) -> Result<Self, String> {
        let texts = list_of_texts(raw).ok_or_else(|| Self::expected(raw))??;
        // What is wrong is not repeated: it may be somebody's number.
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Err("an entry is empty; remove it".into());
        }
        if texts.iter().any(|text| text.chars().count() > TEXT_CHARS_MAX) {
            return Err(format!("an entry is longer than {TEXT_CHARS_MAX} characters"));
        }
        Ok(Self(texts.into_iter().map(str::to_owned).collect()))
    }

    fn write(&self) -> String {
        write_list(self.0.iter())
    }
}

/// Digits that are dialled, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialDigits(pub String);

impl Setting for DialDigits {
    const SHAPE: &'static str = "up to six digits in quotation marks, or empty";

    fn read(raw: &Raw) -> Result<Self, String> {
        let Raw::Text(text) = raw else { return Err(Self::expected(raw)) };
        let digits = text.trim().trim_start_matches('+');
        if digits.len() > 6 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Self::expected(raw));
        }
        Ok(Self(digits.to_owned()))
    }

    fn write(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Patterns of numbers; may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(pub Vec<Pattern>);

impl Setting for Patterns {
    const SHAPE: &'static str = "a pattern of a number, or a list of them";

    fn read(raw: &Raw) -> Result<Self, String> {
        let texts = list_of_texts(raw).ok_or_else(|| Self::expected(raw))??;
        let read = |(at, text): (usize, &str)| {
            text.parse().map_err(|error| format!("entry {} is not a pattern: {error}", at + 1))
        };
        texts.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn write(&self) -> String {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write_list(texts.iter())
    }
}

/// A list of texts, or a single text in which commas separate the entries (a variable has no lists).
/// `None` when it is neither.
fn list_of_texts(raw: &Raw) -> Option<Result<Vec<&str>, String>> {
    let texts: Vec<&str> = match raw {
        Raw::Text(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) => text.split(',').map(str::trim).collect(),
        Raw::List(entries) => entries.iter().map(Raw::text).collect::<Option<_>>()?,
        _ => return None,
    };
    if texts.len() > LIST_ENTRIES_MAX {
        return Some(Err(format!("has {} entries; at most {LIST_ENTRIES_MAX} are allowed", texts.len())));
    }
    Some(Ok(texts))
}

fn write_list<T: fmt::Display>(entries: impl Iterator<Item = T>) -> String {
    let entries: Vec<String> = entries.map(|entry| quoted(&entry.to_string())).collect();
    format!("[{}]", entries.join(", "))
}
