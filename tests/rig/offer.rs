//! Session descriptions that can be changed from one offer to the next.

use std::fmt::Write as _;
use std::net::IpAddr;

/// An offer.
#[derive(Clone)]
pub struct Offer {
    pub ip: IpAddr,
    /// Rises with every later offer.
    pub version: u32,
    /// What stands behind `c=` for the session; no line when there is none.
    pub address: Option<String>,
    /// A direction for all lines.
    pub direction: Option<&'static str>,
    pub lines: Vec<Line>,
}

/// A media line.
#[derive(Clone)]
pub struct Line {
    pub port: u16,
    pub label: String,
    pub profile: &'static str,
    /// Payload types with what `a=rtpmap` says of them; nothing for a type that RFC 3551 assigns.
    pub formats: Vec<(u8, &'static str)>,
    /// A `c=` of its own.
    pub address: Option<String>,
    pub direction: Option<&'static str>,
    /// Further lines, without their ends.
    pub attributes: Vec<String>,
}

/// What stands behind `c=` and `o=` for an address.
pub fn connection(ip: IpAddr) -> String {
    format!("IN IP{} {ip}", if ip.is_ipv4() { 4 } else { 6 })
}

impl Offer {
    /// Two lines of µ-law with the labels 1 and 2.
    pub fn two(ip: IpAddr) -> Self {
        let lines = vec![Line::ulaw("1", 30_000), Line::ulaw("2", 30_002)];
        Self { ip, version: 1, address: Some(connection(ip)), direction: None, lines }
    }

    /// The next offer of the session, with what is changed in it.
    pub fn next(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = Self { version: self.version + 1, ..self.clone() };
        change(&mut next);
        next
    }

    /// The same direction, or none, on every line.
    pub fn direct(&mut self, direction: Option<&'static str>) {
        self.lines.iter_mut().for_each(|line| line.direction = direction);
    }

    pub fn text(&self) -> String {
        let mut text = format!("v=0\r\no=BroadWorks 11 {} {}\r\ns=-\r\n", self.version, connection(self.ip));
        let mut put = |line: &str| write!(text, "{line}\r\n").unwrap();
        if let Some(address) = &self.address {
            put(&format!("c={address}"));
        }
        put("t=0 0");
        self.direction.iter().for_each(|direction| put(&format!("a={direction}")));
        for line in &self.lines {
            let types: String = line.formats.iter().map(|(number, _)| format!(" {number}")).collect();
            put(&format!("m=audio {} {}{types}", line.port, line.profile));
            line.address.iter().for_each(|address| put(&format!("c={address}")));
            for (number, map) in line.formats.iter().filter(|(_, map)| !map.is_empty()) {
                put(&format!("a=rtpmap:{number} {map}"));
            }
            line.attributes.iter().for_each(|attribute| put(attribute));
            line.direction.iter().for_each(|direction| put(&format!("a={direction}")));
            put(&format!("a=label:{}", line.label));
        }
        text
    }
}

impl Line {
    pub fn ulaw(label: &str, port: u16) -> Self {
        Self {
            port,
            label: label.into(),
            profile: "RTP/AVP",
            formats: vec![(0, "PCMU/8000")],
            address: None,
            direction: Some("sendonly"),
            attributes: Vec::new(),
        }
    }
}
