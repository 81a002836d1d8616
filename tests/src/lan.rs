//! A small network of machines in one: network namespaces on a bridge, whose cables can be pulled.
//!
//! Needs root and iproute2 on Linux. The test itself stands at the bridge, with an address of its own, and so reaches
//! every machine whose cable is in.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::site::Place;
use crate::skip;

/// All that is made begins with this, the process's id behind it, so that what a killed test left behind is known.
const PREFIX: &str = "gantry";

/// A bridge and what hangs on it; all of it goes when it is dropped.
pub struct Lan {
    bridge: String,
    /// The first three numbers of all addresses, from the range for tests of networks (RFC 2544).
    subnet: [u8; 3],
    machines: Vec<Machine>,
}

struct Machine {
    namespace: String,
    /// The bridge's end of its cable.
    port: String,
}

impl Lan {
    /// A network without machines; `None`, with a word about why, where it cannot be made. `what` names the test.
    pub fn make(what: &str) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        if let Err(why) = sweep() {
            skip(what, &format!("network namespaces cannot be made here: {why}"));
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // An interface's name has 15 bytes at the most.
        let bridge = format!("gb{}x{number}", std::process::id());
        let made = ip(&["link", "add", &bridge, "type", "bridge"])
            .and_then(|_| ip(&["link", "set", &bridge, "up"]));
        let lan = Self { bridge, subnet: free_subnet(), machines: Vec::new() };
        let address = format!("{}/24", lan.own());
        match made.and_then(|_| ip(&["address", "add", &address, "dev", &lan.bridge])) {
            Ok(_) => Some(lan),
            Err(why) => {
                skip(what, &format!("a bridge cannot be made here: {why}"));
                None
            }
        }
    }

    /// The test's own address.
    pub fn own(&self) -> Ipv4Addr {
        self.address(254)
    }

    /// All addresses, as a network.
    pub fn network(&self) -> String {
        format!("{}/24", self.address(0))
    }

    /// One more machine, with its cable in.
    pub fn machine(&mut self, name: &str) -> Place {
        let number = u8::try_from(self.machines.len() + 1).expect("a small network");
        let namespace = format!("{PREFIX}-{}-{}-{name}", std::process::id(), self.subnet[2]);
        let port = format!("{}p{number}", self.bridge);
        let inner = format!("{}i{number}", self.bridge);
        let address = self.address(number);
        must(&["netns", "add", &namespace]);
        self.machines.push(Machine { namespace: namespace.clone(), port: port.clone() });
        must(&["link", "add", &port, "type", "veth", "peer", "name", &inner]);
        must(&["link", "set", &inner, "netns", &namespace]);
        must(&["link", "set", &port, "master", &self.bridge, "up"]);
        let inside = |arguments: &[&str]| must(&[&["-n", namespace.as_str()], arguments].concat());
        inside(&["link", "set", "lo", "up"]);
        inside(&["address", "add", &format!("{address}/24"), "dev", &inner]);
        inside(&["link", "set", &inner, "up"]);
        Place { address, namespace: Some(namespace) }
    }

    /// Pulls a machine's cable: nothing reaches it any more, and nothing tells it so.
    pub fn pull(&self, place: &Place) {
        must(&["link", "set", &self.of(place).port, "down"]);
    }

    /// Puts it in again.
    pub fn plug(&self, place: &Place) {
        must(&["link", "set", &self.of(place).port, "up"]);
    }

    /// These machines reach each other no more, and everybody else as before; or again.
    pub fn part(&self, places: &[&Place], parted: bool) {
        for place in places {
            let port = &self.of(place).port;
            let isolated = if parted { "on" } else { "off" };
            must(&["link", "set", "dev", port, "type", "bridge_slave", "isolated", isolated]);
        }
    }

    fn of(&self, place: &Place) -> &Machine {
        let found = self.machines.iter().find(|m| Some(&m.namespace) == place.namespace.as_ref());
        found.expect("a machine of this network")
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // What is gone already need not be removed; a cable goes with its machine.
        for machine in &self.machines {
            let _ = ip(&["netns", "delete", &machine.namespace]);
            let _ = ip(&["link", "delete", &machine.port]);
        }
        let _ = ip(&["link", "delete", &self.bridge]);
    }
}

/// Removes what killed tests have left behind. Also the proof that namespaces can be had.
fn sweep() -> Result<(), String> {
    let probe = format!("{PREFIX}-{}-probe-{}", std::process::id(), fastrand::u32(..));
    ip(&["netns", "add", &probe])?;
    ip(&["netns", "delete", &probe])?;
    let alive = |pid: &str| std::path::Path::new("/proc").join(pid).exists();
    for line in ip(&["netns", "list"])?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if pid.is_some_and(|pid| !alive(pid)) {
            let _ = ip(&["netns", "delete", name]);
        }
    }
    for line in ip(&["-brief", "link", "show", "type", "bridge"])?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name.strip_prefix("gb").and_then(|rest| rest.split('x').next());
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !alive(pid)) {
            let _ = ip(&["link", "delete", name]);
        }
    }
    Ok(())
}

fn free_subnet() -> [u8; 3] {
    let taken = ip(&["-brief", "address", "show"]).unwrap_or_default();
    loop {
        let subnet = [198, fastrand::u8(18..=19), fastrand::u8(..)];
        let [a, b, c] = subnet;
        if !taken.contains(&format!("{a}.{b}.{c}.")) {
            return subnet;
        }
    }
}

fn must(arguments: &[&str]) -> String {
    ip(arguments).unwrap_or_else(|why| panic!("{why}"))
}

fn ip(arguments: &[&str]) -> Result<String, String> {
    let said = |why: String| format!("ip {}: {why}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output().map_err(|e| said(e.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(said(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
