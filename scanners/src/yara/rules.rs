//! Rules, read and compiled.

use std::fs;
use std::path::PathBuf;

use boreal::{Compiler, Scanner};
use sha2::{Digest, Sha256};

const BUNDLED: &str = include_str!("bundled.yar");

/// Largest rule file: the largest collections in public have some 20 MB.
const RULE_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bytes of the digest that name a set of rules: enough to tell sets apart, few enough to read aloud.
const VERSION_DIGEST_BYTES: usize = 4;

/// A set of rules.
pub(super) struct Rules {
    pub(super) scanner: Scanner,
    /// How many rules, and a digest of their text, so that workers with different sets can be told apart.
    pub(super) version: String,
}

impl Rules {
    /// The bundled rules are used where asked for, and where there are no others.
    pub(super) fn compile(files: &[PathBuf], bundled: bool) -> Result<Self, String> {
        let mut compiler = Compiler::new();
        let mut digest = Sha256::new();
        if bundled || files.is_empty() {
            digest.update(BUNDLED);
            compiler
                .add_rules_str_in_namespace(BUNDLED, "bundled")
                .map_err(|error| format!("compile the bundled rules: {error}"))?;
        }
        for path in files {
            digest.update(read(path)?);
            compiler
                .add_rules_file_in_namespace(path, path.display().to_string())
                .map_err(|error| format!("compile rules: {error}"))?;
        }
        let scanner = compiler.finalize();
        let count = scanner.rules().count();
        if count == 0 {
            return Err("compile rules: the files hold no rule at all, so nothing would ever be \
                        found"
                .to_owned());
        }
        let digest = digest.finalize();
        let short: String =
            digest.iter().take(VERSION_DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { scanner, version: format!("{count} rules, {short}") })
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    let problem = |error: &dyn std::fmt::Display| format!("read rules {}: {error}", path.display());
    let length = fs::metadata(path).map_err(|error| problem(&error))?.len();
    if length > RULE_FILE_BYTES_MAX {
        return Err(problem(&format!("{length} bytes are more than {RULE_FILE_BYTES_MAX}")));
    }
    fs::read(path).map_err(|error| problem(&error))
}
