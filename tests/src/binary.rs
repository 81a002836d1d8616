//! Gantry's programs, built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the project")
}

/// Where [`binary`] finds the programs, once somebody has asked.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// The path of a program (`gantry-hook`, `gantry`) of the same profile as this test. Built here, since cargo builds
/// no other package's programs for a test; `GANTRY_BIN_DIR` names a folder where they lie ready.
pub fn binary(name: &str) -> PathBuf {
    let folder = FOLDER.get_or_init(|| match std::env::var_os("GANTRY_BIN_DIR") {
        Some(folder) => folder.into(),
        None => {
            build(&[]);
            target()
        }
    });
    let path = program(folder, name);
    assert!(path.is_file(), "there is no {name} at {}", path.display());
    path
}

/// From here on [`binary`] gives programs that can be told where to crash. They lie in a folder of their own, and the ordinary
/// ones in their place again.
///
/// # Panics
/// Where programs have been asked for before.
pub fn use_crash_points() {
    let folder = target().join("crash-points");
    build(&["--features", "gantry-hook/crash-points,gantry/crash-points"]);
    fs::create_dir_all(&folder).expect("make the folder of the programs with crash points");
    for name in ["gantry-hook", "gantry"] {
        // A new file each time: one that still runs cannot be written to.
        let to = program(&folder, name);
        let _ = fs::remove_file(&to);
        fs::copy(program(&target(), name), to).expect("copy the programs with crash points");
    }
    build(&[]);
    FOLDER.set(folder).expect("no program was asked for before");
}

fn program(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// The folder of this profile's programs.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("find this test");
    // target/PROFILE/deps/this-test, or target/PROFILE/bench
    let folder = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    folder.expect("the test lies in a target folder").to_owned()
}

fn build(more: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "gantry-hook", "-p", "gantry"]).args(more);
    command.current_dir(project());
    if target().ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("run cargo");
    assert!(status.success(), "build the programs: {status}");
}
