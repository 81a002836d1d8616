//! Addresses: whom to dial, and whom to listen to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest host name (RFC 1035 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Somebody to dial: a host name or address, and a port that is not zero. Text form: `host:port`, `[::1]:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A name or an address without brackets.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// The address, where no name has to be looked up for it.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|address: IpAddr| SocketAddr::new(address, self.port))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err("its port is not between 1 and 65535"),
            Ok(port) => port,
        };
        if let Some(bracketed) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr =
                bracketed.parse().map_err(|_| "what stands in brackets is no IPv6 address")?;
            return Ok(Self { host: address.to_string(), port });
        }
        check_host(host)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Checks a host name or an IPv4 address.
pub(crate) fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("it names no host");
    }
    if host.contains(':') {
        return Err("an IPv6 address stands in brackets");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.len() > HOST_BYTES_MAX || !host.bytes().all(allowed) || host.starts_with(['.', '-']) {
        return Err("its host is neither a name nor an address");
    }
    Ok(())
}

/// Addresses with a common prefix. Text form: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// This machine itself.
    pub const LOOPBACK: [Network; 2] = [
        Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
        Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    ];

    /// Whether `address` lies in it. An IPv4 address that a dual-stack socket shows as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNetwork {
    #[error("it is neither an address nor a network")]
    Malformed,
    /// `10.1.2.3/8`: was the address meant, or the network?
    #[error("its address has bits beyond the prefix")]
    HostBits { network: Network },
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork::Malformed)?;
        let address = address.to_canonical();
        let prefix = match prefix {
            None if address.is_ipv4() => 32,
            None => 128,
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().map_err(|_| NoNetwork::Malformed)?
            }
            Some(_) => return Err(NoNetwork::Malformed),
        };
        let first = masked(address, prefix).ok_or(NoNetwork::Malformed)?;
        let network = Self { address: first, prefix };
        match network.address == address {
            true => Ok(network),
            false => Err(NoNetwork::HostBits { network }),
        }
    }
}

/// The address with only its first `prefix` bits; `None` if it has fewer.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    Some(match address {
        IpAddr::V4(own) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
            IpAddr::V4((u32::from(own) & mask).into())
        }
        IpAddr::V6(own) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix)?).unwrap_or(0);
            IpAddr::V6((u128::from(own) & mask).into())
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for right in ["127.0.0.1:25", "mail.example.com:10025", "[::1]:25", "localhost:1"] {
            assert_eq!(right.parse::<Endpoint>().unwrap().to_string(), right);
        }
        for (wrong, why) in [
            ("mail.example.com", "it has no port"),
            ("mail.example.com:0", "its port is not between 1 and 65535"),
            ("mail.example.com:70000", "its port is not between 1 and 65535"),
            ("::1:25", "an IPv6 address stands in brackets"),
            (":25", "it names no host"),
            ("[a]:25", "what stands in brackets is no IPv6 address"),
            ("a b:25", "its host is neither a name nor an address"),
        ] {
            assert_eq!(wrong.parse::<Endpoint>(), Err(why), "{wrong}");
        }
        let literal: Endpoint = "[::1]:25".parse().unwrap();
        assert_eq!(literal.socket_addr(), Some("[::1]:25".parse().unwrap()));
        assert_eq!("mx:25".parse::<Endpoint>().unwrap().socket_addr(), None);
    }

    #[test]
    fn networks_contain_what_shares_their_prefix() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("0.0.0.0/0", "203.0.113.1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"), "a dual-stack socket's IPv4 peer");
        assert!(Network::LOOPBACK.iter().any(|own| own.contains(IpAddr::V6(Ipv6Addr::LOCALHOST))));
    }

    #[test]
    fn a_network_with_stray_bits_is_refused_and_corrected() {
        let corrected = "10.0.0.0/8".parse().unwrap();
        assert_eq!(
            "10.1.2.3/8".parse::<Network>(),
            Err(NoNetwork::HostBits { network: corrected })
        );
        for wrong in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "::/129",
            "a/8",
            "10.0.0.0/+8",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(NoNetwork::Malformed), "{wrong}");
        }
    }
}
