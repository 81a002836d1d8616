//! Gantry's programs, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the project")
}

/// The path of a program (`gantry-hook`, `gantry`) of the same profile as this test. Built here, since cargo builds
/// no other package's programs for a test; `GANTRY_BIN_DIR` names a folder where they lie ready.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match std::env::var_os("GANTRY_BIN_DIR") {
        Some(folder) => folder.into(),
        None => build(),
    });
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "there is no {name} at {}", path.display());
    path
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let test = std::env::current_exe().expect("find this test");
    // target/PROFILE/deps/this-test, or target/PROFILE/bench
    let folder = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let folder = folder.expect("the test lies in a target folder").to_owned();
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "gantry-hook", "-p", "gantry"]).current_dir(project());
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("run cargo");
    assert!(status.success(), "build the programs: {status}");
    folder
}
