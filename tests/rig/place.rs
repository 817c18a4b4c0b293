//! A loopback address for each appliance, so that tests run beside each other, and beside an appliance that is in use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// Nothing listens here but the guard: who can bind it has the address.
const GUARD_PORT: u16 = 15_059;
const SIP_PORT: u16 = 15_060;
const TLS_PORT: u16 = 15_061;
const HTTP_PORT: u16 = 15_088;
/// First port from which SIPp sends audio.
pub const SIPP_MEDIA_PORT: u16 = 15_400;
/// First media port of the appliance; below the range from which the kernel gives out ports by itself.
pub const MEDIA_PORT: u16 = 16_000;

/// An address that is this test's alone until it is dropped.
pub struct Place {
    pub ip: IpAddr,
    _guard: TcpListener,
}

impl Place {
    pub fn take() -> Self {
        for last in 1..=250 {
            let ip = IpAddr::V4(Ipv4Addr::new(127, 77, 0, last));
            // A daemon whose test was killed may be there still, and would answer for ours.
            let is_left = || TcpListener::bind((ip, HTTP_PORT)).is_err();
            if let Ok(guard) = TcpListener::bind((ip, GUARD_PORT))
                && !is_left()
            {
                return Self { ip, _guard: guard };
            }
        }
        panic!("no loopback address is free: are 250 appliances running?");
    }

    pub fn sip(&self) -> SocketAddr {
        SocketAddr::new(self.ip, SIP_PORT)
    }

    pub fn tls(&self) -> SocketAddr {
        SocketAddr::new(self.ip, TLS_PORT)
    }

    /// A port of IPv6's loopback address, of which there is only one.
    pub fn ipv6(&self) -> SocketAddr {
        let IpAddr::V4(ip) = self.ip else { panic!("places are of IPv4") };
        SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 15_100 + u16::from(ip.octets()[3]))
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, HTTP_PORT)
    }
}
