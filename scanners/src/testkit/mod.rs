//! What tests need of the real world: a private clamd, and what it is to find.

mod clamd;

pub use self::clamd::{Clamd, ClamdOptions};

/// The string that every virus scanner takes for a virus by agreement (eicar.org). Put together here, so that no
/// scanner takes the source or the program for it.
pub fn eicar() -> Vec<u8> {
    [&br"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR"[..], b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}
