//! Exit codes, as in BSD's `sysexits.h`, so that MTAs and service managers understand them.

/// Everything was done.
pub const OK: u8 = 0;
/// The command line is wrong.
pub const EX_USAGE: u8 = 64;
/// What was given to work on is wrong.
pub const EX_DATAERR: u8 = 65;
/// A file that was named cannot be read.
pub const EX_NOINPUT: u8 = 66;
/// There is no such user: what a delivery program says of an address.
pub const EX_NOUSER: u8 = 67;
/// There is no such host.
pub const EX_NOHOST: u8 = 68;
/// What it takes is not there: no hook is running, no host answers.
pub const EX_UNAVAILABLE: u8 = 69;
/// A defect in Gantry.
pub const EX_SOFTWARE: u8 = 70;
/// A file cannot be made.
pub const EX_CANTCREAT: u8 = 73;
/// Reading or writing failed.
pub const EX_IOERR: u8 = 74;
/// Not now; the same may work later.
pub const EX_TEMPFAIL: u8 = 75;
/// Refused: a token that is used up, a certificate that was revoked.
pub const EX_NOPERM: u8 = 77;
/// The configuration is wrong.
pub const EX_CONFIG: u8 = 78;
