//! How the protocol travels: QUIC, identities, join tokens, streams, back-off.
//!
//! Three steps lead to a link, each a type that only the one before can make:
//! 1. [`Authority::create`] makes a cluster's certificate authority and the first host's identity.
//! 2. [`Authority::issue_token`] and [`join()`] give a worker its [`NodeIdentity`]; the private key never travels. After two
//!    thirds of its 90 days a certificate is to be renewed ([`renew`], [`Authority::renew_host`]).
//! 3. [`Server::bind`] on the host and [`connect`] on the worker make links; or, where the worker cannot reach the host,
//!    [`Server::dialler`] there and [`Listener::bind`] here. Both sides verify the other's
//!    certificate before they read anything from it, and a link that is refused says why on both sides.
//!
//! Operators have connections of their own ([`connect_operator`], [`OperatorLink`]) on the same port, with a stream for
//! each request.
//!
//! A [`HostLink`] or [`WorkerLink`] has one control stream, at the highest priority, and one bidirectional stream for each
//! reservation ([`FrameSender`], [`FrameReceiver`]).

mod accept;
mod authority;
mod backoff;
mod certificate;
mod client;
mod desk;
mod dialler;
mod durable;
mod identity;
mod join;
mod link;
mod listener;
mod name;
mod operator;
mod refusal;
mod server;
mod standing;
mod stream;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod trust;

pub use authority::{Authority, AuthorityError, IssuedCertificate, SealError, TokenRequest};
pub use backoff::Backoff;
pub use client::{ConnectOptions, LinkError, ReachedHost, connect, reach};
pub use dialler::{Dialler, certify_at};
pub use identity::{
    Clock, Identity, IdentityError, NoRole, NodeIdentity, Role, Serial, system_clock,
};
pub use join::{JoinError, exchange_trust, join, join_called, renew};
pub use link::{
    Closed, HostConnection, HostLink, HostReservationStream, WorkerConnection, WorkerLink,
    WorkerReservationStream,
};
pub use listener::{Call, Desk, Listener};
pub use name::{NameMask, NoMask, is_name};
pub use operator::{Asked, OperatorConnection, OperatorLink, connect_operator};
pub use refusal::{CloseCode, Refusal};
pub use server::{Accepted, Incoming, Server, ServerError, ServerOptions, common_version};
pub use standing::{Reminder, Standing};
pub use stream::{BodyReader, BodyWriter, FrameReceiver, FrameSender, StreamError};
pub use token::{JoinToken, TokenError};
pub use transport::TlsError;
pub use trust::{AuthorityId, AuthorityKind, AuthorityState, Trust, TrustError};
