//! Where a program shows its metrics: the same table in both.

use std::net::SocketAddr;

use crate::Table;

/// The keys of the table `metrics`.
pub const METRICS: &[&str] = &["listen", "beyond_loopback"];

/// The address on which metrics are shown; none without the table. Whoever reaches it may read them, so an address beyond
/// loopback has to be meant.
pub fn metrics(top: &Table<'_>) -> Option<SocketAddr> {
    let table = top.value("metrics")?.table()?;
    table.allow(METRICS);
    let remedy = "write an address, such as listen = \"127.0.0.1:9464\"";
    let listen = table.required("listen", remedy)?.listen()?;
    let beyond = table.or("beyond_loopback", false, |value| value.flag());
    if !listen.ip().is_loopback() && !beyond {
        let problem = format!("{listen} can be reached from other machines, by anybody there");
        table.wrong(
            "listen",
            problem,
            "write \"127.0.0.1:9464\", or beyond_loopback = true beside it if this is meant",
        );
        return None;
    }
    Some(listen)
}
