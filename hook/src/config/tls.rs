//! TLS of a mailbox's way in and way out, and the password of the latter.

use gantry_config::{Endpoint, Table, Value};
use rustls::pki_types::ServerName;

use super::{IntakeTls, keys};
use crate::release::Credentials;
use crate::tls::{CertificateFiles, Demand};

/// Longest user name, in bytes: PLAIN asks for at least 255 (RFC 4616, 2).
const USER_BYTES_MAX: usize = 255;

const TLS: &str = "write tls = { certificate = \"mx1.pem\", key = \"mx1.key\" }";
const CA: &str = "write tls_ca = \"ca.pem\": the certificate of the authority that signed the next hop's, or the next hop's \
                  own; on Debian /etc/ssl/certs/ca-certificates.crt has the public authorities";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    Opportunistic,
    Required,
}

/// `tls` of an intake.
pub(super) fn intake(value: &Value<'_>) -> Option<IntakeTls> {
    let table = value.table()?;
    table.allow(keys::INTAKE_TLS);
    let certificate = table.required("certificate", TLS).and_then(|value| value.path());
    let key = table.required("key", TLS).and_then(|value| value.path());
    Some(IntakeTls {
        files: CertificateFiles { certificate: certificate?, key: key? },
        required: table.or("required", false, Value::flag),
    })
}

/// `tls`, `tls_ca` and `tls_name` of a way out to this next hop.
pub(super) fn demand(table: &Table<'_>, address: Option<&Endpoint>) -> Option<Demand> {
    let here = address.is_some_and(is_here);
    let mode = table.or("tls", if here { Mode::Off } else { Mode::Opportunistic }, |value| {
        value.one_of(&[
            ("off", Mode::Off),
            ("opportunistic", Mode::Opportunistic),
            ("required", Mode::Required),
        ])
    });
    if mode != Mode::Required {
        for key in ["tls_ca", "tls_name"] {
            let problem = "only tls = \"required\" verifies whom it talks to";
            table.refuse(key, problem, "remove it, or write tls = \"required\"");
        }
        return Some(if mode == Mode::Off { Demand::Off } else { Demand::Opportunistic });
    }
    let ca = table.required("tls_ca", CA).and_then(|value| value.path());
    let remedy =
        "write the name in the next hop's certificate, such as tls_name = \"mx.example.com\"";
    let named = table.value("tls_name").map(|value| {
        value.parsed(
            |text| match ServerName::try_from(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err("it is neither a host name nor an address"),
            },
            remedy,
        )
    });
    let name = named.unwrap_or_else(|| address.map(|address| address.host.clone()));
    Some(Demand::Required { ca: ca?, name: name? })
}

/// Outer `None`: a mistake. Inner `None`: it does not log in.
pub(super) fn credentials(
    table: &Table<'_>,
    address: Option<&Endpoint>,
    demand: Option<&Demand>,
) -> Option<Option<Credentials>> {
    if !table.has("auth_user") {
        for key in ["auth_password_file", "auth_without_tls"] {
            table.refuse(key, "there is no auth_user", "write auth_user = \"NAME\", or remove it");
        }
        return Some(None);
    }
    let user = table.value("auth_user").and_then(|value| {
        let remedy = "write the name to log in with, such as auth_user = \"gantry\"";
        value.parsed(
            |text| match text {
                "" => Err("it is empty"),
                _ if text.len() > USER_BYTES_MAX => Err("it has more than 255 bytes"),
                _ if text.chars().any(char::is_control) => Err("it has control characters"),
                _ => Ok(text.to_owned()),
            },
            remedy,
        )
    });
    let remedy = "write auth_password_file = \"password\": a file of one line, mode 600";
    let password_file = table.required("auth_password_file", remedy).and_then(|value| value.path());
    let without_tls = table.or("auth_without_tls", false, Value::flag);
    if without_tls && address.is_some_and(|address| !is_here(address)) {
        table.wrong(
            "auth_without_tls",
            "the next hop is on another machine, and the password could be heard on the way",
            "remove it, and write tls = \"required\"",
        );
    }
    if !without_tls && demand.is_some_and(|demand| !matches!(demand, Demand::Required { .. })) {
        table.wrong(
            "auth_user",
            "its password is sent only under TLS to a next hop that was verified",
            "write tls = \"required\" and tls_ca; for a next hop on loopback auth_without_tls = true also does",
        );
    }
    Some(Some(Credentials { user: user?, password_file: password_file?, without_tls }))
}

/// Whether the next hop is on this machine.
fn is_here(address: &Endpoint) -> bool {
    address.host.eq_ignore_ascii_case("localhost")
        || address.socket_addr().is_some_and(|address| address.ip().to_canonical().is_loopback())
}
