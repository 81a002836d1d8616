//! Making certificates, and verifying them. The only place that looks inside one.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_protocol::limits::NEEDS_MAX;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber, SignatureAlgorithm,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::ring::ECDSA_P256_SHA256;
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

use crate::identity::{Identity, Role, Serial};
use crate::name::{is_label, is_name};
use crate::refusal::{CloseCode, Refusal, Span};
use crate::trust::{AuthorityId, Trust};

/// How long a node's certificate lives, in seconds: 90 days.
pub(crate) const NODE_SECONDS: u64 = 90 * 86_400;
/// How long an authority lives, in seconds: ten years.
pub(crate) const ROOT_SECONDS: u64 = 3_650 * 86_400;
/// How far before its making a certificate begins, in seconds, for workers whose clocks are behind.
const BACKDATED_SECONDS: u64 = 3_600;

/// The domain of all names in certificates. `.internal` is reserved for private use, and the authority is constrained to it.
const DOMAIN: &str = "gantry.internal";
/// Before the domain in the names that grant a need.
const PROVIDES: &str = "provides";

/// A new key: ECDSA on P-256, which ring, rustls and webpki all have, and hardware keeps, too.
pub(crate) fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// The authority's signing side. All that it needs is made from the key, so that the key alone can be kept offline.
pub(crate) fn issuer(key: KeyPair) -> Issuer<'static, KeyPair> {
    Issuer::new(authority_params(&key), key)
}

/// A new authority's own certificate, from an hour before `now` to its last second.
pub(crate) fn authority_certificate(
    key: &KeyPair,
    now: u64,
    expires: u64,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = authority_params(key);
    set_validity(&mut params, (now.saturating_sub(BACKDATED_SECONDS), expires));
    Ok(params.self_signed(key)?.der().clone())
}

fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two clusters' authorities must not have the same name.
    let own = digest(&SHA256, key.public_key_raw());
    let own = to_hex(own.as_ref().get(..8).unwrap_or_default());
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, format!("Gantry authority {own}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(DOMAIN.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    params
}

/// What a new certificate says.
pub(crate) struct Request<'a> {
    pub(crate) name: &'a str,
    pub(crate) role: Role,
    pub(crate) provides: &'a [String],
    pub(crate) serial: Serial,
    /// First and last second.
    pub(crate) valid: (u64, u64),
}

/// 90 days from `now`, and an hour before; never longer than the authority lives.
pub(crate) fn validity(now: u64, authority: u64) -> (u64, u64) {
    (now.saturating_sub(BACKDATED_SECONDS), now.saturating_add(NODE_SECONDS).min(authority))
}

/// Signs a certificate for the holder of `key`.
pub(crate) fn issue(
    issuer: &Issuer<'_, KeyPair>,
    request: &Request<'_>,
    key: &impl PublicKeyData,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let own = format!("{}.{}.{DOMAIN}", request.name, request.role);
    let mut params = CertificateParams::default();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, own.clone());
    params.subject_alt_names.push(SanType::DnsName(own.try_into()?));
    for need in request.provides {
        let name = format!("{need}.{PROVIDES}.{DOMAIN}");
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.serial_number = Some(SerialNumber::from_slice(&request.serial.0));
    set_validity(&mut params, request.valid);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Which side dials is configuration, so every node can be both ends of a connection; its role is in its name.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(key, issuer)?.der().clone())
}

/// A certificate that proves nothing but that its sender has the key: what a joining node shows.
pub(crate) fn bare_certificate(key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, "joining");
    Ok(params.self_signed(key)?.der().clone())
}

pub(crate) fn new_serial() -> Result<Serial, ring::error::Unspecified> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes)?;
    // A positive number of exactly 16 bytes (RFC 5280 section 4.1.2.2), so that its text has one form.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(Serial(bytes))
}

/// Who the holder of the first certificate in `chain` is: one of a trusted authority's nodes, in time, not revoked, in this
/// role. The holder's possession of the key has been proved by the handshake.
///
/// # Errors
/// The first of the conditions that does not hold, as a sentence for both sides.
pub(crate) fn verify(
    chain: &[CertificateDer<'_>],
    trust: &Trust,
    role: Role,
    now: u64,
) -> Result<Identity, Refusal> {
    check_role(verify_any_role(chain, trust, now)?, role)
}

/// [`verify`] without the role.
pub(crate) fn verify_any_role(
    chain: &[CertificateDer<'_>],
    trust: &Trust,
    now: u64,
) -> Result<Identity, Refusal> {
    let Some(own) = chain.first() else {
        let text = "no certificate was shown; get one by joining with a token";
        return Err(Refusal::new(CloseCode::NoCertificate, text));
    };
    let unknown = |_: Error| {
        let text = "the certificate is not one of this cluster's authority; join with a token";
        Refusal::new(CloseCode::UnknownAuthority, text)
    };
    let own = EndEntityCert::try_from(own).map_err(unknown)?;
    let anchors = trust.authorities().iter();
    let anchors: Result<Vec<_>, _> =
        anchors.map(|authority| anchor_from_trusted_cert(&authority.certificate)).collect();
    let anchors = anchors.map_err(unknown)?;
    let check = |now: u64| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let usage = KeyUsage::client_auth();
        let path =
            own.verify_for_usage(&[ECDSA_P256_SHA256], &anchors, &[], time, usage, None, None)?;
        // An authority's name follows from its key.
        let of = anchors.iter().position(|anchor| anchor.subject == path.anchor().subject);
        Ok(of.and_then(|index| trust.authorities().get(index)))
    };
    let authority = match check(now) {
        Ok(Some(authority)) => authority,
        Ok(None) => return Err(unknown(Error::UnknownIssuer)),
        Err(Error::CertExpired { not_after, .. }) => {
            let ago = Span(now.saturating_sub(not_after.as_secs()));
            let text = format!("the certificate expired {ago} ago; join again, or set the clock");
            return Err(Refusal::new(CloseCode::Expired, text));
        }
        Err(Error::CertNotValidYet { not_before, .. }) => {
            let ahead = Span(not_before.as_secs().saturating_sub(now));
            let text = format!("the certificate begins in {ahead} only; set the clock");
            return Err(Refusal::new(CloseCode::NotYetValid, text));
        }
        Err(error) => return Err(unknown(error)),
    };
    // webpki does not look at a trusted one's end.
    if authority.expires < now {
        let ago = Span(now - authority.expires);
        let text = format!("the authority of the certificate expired {ago} ago; join again");
        return Err(Refusal::new(CloseCode::Expired, text));
    }
    // webpki tells the end of a certificate only where it lies in the past.
    let expires = match check(u64::MAX / 4) {
        Err(Error::CertExpired { not_after, .. }) => not_after.as_secs(),
        _ => now,
    };
    let identity = read_identity(&own, authority.id(), expires)?;
    trust.check(&identity)?;
    Ok(identity)
}

fn read_identity(
    own: &EndEntityCert<'_>,
    authority: AuthorityId,
    expires: u64,
) -> Result<Identity, Refusal> {
    let strange = || {
        let text = "the certificate is of this cluster's authority but is none for a node";
        Refusal::new(CloseCode::UnknownAuthority, text)
    };
    let mut named = None;
    let mut provides = Vec::new();
    for name in own.valid_dns_names() {
        let rest = name.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.'));
        let (rest, kind) = rest.and_then(|rest| rest.rsplit_once('.')).ok_or_else(strange)?;
        if kind == PROVIDES && is_label(rest) && provides.len() < NEEDS_MAX {
            provides.push(rest.to_owned());
        } else if let Ok(role) = kind.parse::<Role>()
            && is_name(rest)
            && named.is_none()
        {
            named = Some((rest.to_owned(), role));
        } else {
            return Err(strange());
        }
    }
    let (name, role) = named.ok_or_else(strange)?;
    let serial = own.serial().try_into().map(Serial).map_err(|_| strange())?;
    Ok(Identity { name, role, provides, serial, authority, expires })
}

fn check_role(identity: Identity, role: Role) -> Result<Identity, Refusal> {
    if identity.role == role {
        return Ok(identity);
    }
    let text = format!(
        "the certificate of {} is for the role {}; here it takes {role}",
        identity.name, identity.role
    );
    Err(Refusal::new(CloseCode::WrongRole, text))
}

/// That a name somebody uses is the one in its certificate.
pub(crate) fn check_name(identity: Identity, name: &str) -> Result<Identity, Refusal> {
    if identity.name == name {
        return Ok(identity);
    }
    let text = format!("it calls itself {name:?} but its certificate is for {}", identity.name);
    Err(Refusal::new(CloseCode::NameMismatch, text))
}

/// The public key in a certificate, where it is of our kind (P-256).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(Vec<u8>);

/// What stands before the point in the DER of a P-256 public key (RFC 5480 section 2).
const P256_KEY_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point.
const P256_POINT_BYTES: usize = 65;

impl PublicKey {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let key = EndEntityCert::try_from(certificate).ok()?.subject_public_key_info();
        let point = key.as_ref().strip_prefix(&P256_KEY_PREFIX)?;
        (point.len() == P256_POINT_BYTES).then(|| Self(point.to_vec()))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Whether a certificate is for this key.
pub(crate) fn belongs_to(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    PublicKey::of(certificate).is_some_and(|public| public.0 == key.public_key_raw())
}

/// Whether `signature` is that of the certificate's holder over `bytes`.
pub(crate) fn is_signed(bytes: &[u8], signature: &[u8], certificate: &CertificateDer<'_>) -> bool {
    EndEntityCert::try_from(certificate)
        .is_ok_and(|own| own.verify_signature(ECDSA_P256_SHA256, bytes, signature).is_ok())
}

/// SHA-256 over a certificate: what a token pins.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
    bytes
}

/// A certificate in the text form of RFC 7468.
pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower-case hex, two digits a byte.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// From the first to the last second, both since 1970; the year 9999 is as far as certificates go.
fn set_validity(params: &mut CertificateParams, (first, last): (u64, u64)) {
    const LAST: u64 = 253_402_300_799;
    let zero = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = zero + Duration::from_secs(first.min(LAST));
    params.not_after = zero + Duration::from_secs(last.min(LAST));
}
