//! Exit codes, as in BSD's `sysexits.h`, so that MTAs and service managers understand them, and ending with one.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

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

/// What went wrong, in a sentence, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// Empty where it has been said already.
    pub text: String,
}

/// What went wrong, in the words of an error.
pub fn failure(code: u8, error: impl Display) -> Failure {
    Failure { code, text: error.to_string() }
}

/// Mistakes in a configuration, a line each.
pub fn mistakes<T: Display>(told: impl IntoIterator<Item = T>) -> Failure {
    let lines: Vec<String> = told.into_iter().map(|mistake| mistake.to_string()).collect();
    Failure { code: EX_CONFIG, text: lines.join("\n") }
}

/// Writes a line of a command's results.
///
/// # Errors
/// [`EX_IOERR`] where it cannot be written.
pub fn line(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    writeln!(out, "{text}").map_err(|error| failure(EX_IOERR, error))
}

/// How a program ends after its command: what went wrong is said on standard error, behind the program's name.
pub fn end(program: &str, done: Result<(), Failure>) -> ExitCode {
    let Err(Failure { code, text }) = done else { return ExitCode::from(OK) };
    if !text.is_empty() {
        // Nobody is left to tell where this fails.
        let _ = writeln!(std::io::stderr(), "{program}: {text}");
    }
    ExitCode::from(code)
}
