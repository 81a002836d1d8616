//! Which program, how it is called, and what its exit codes mean.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A `[[module]]` of type `command`.
#[derive(Clone, Debug)]
pub struct CommandConfig {
    pub name: String,
    /// The need that it meets.
    pub provides: String,
    /// Absolute: nothing is looked for in a `PATH`.
    pub program: PathBuf,
    /// Without [`Argument::File`] the message comes on standard input.
    pub arguments: Vec<Argument>,
    /// The whole environment, but for `TMPDIR` and what the platform cannot do without.
    pub environment: Vec<(String, String)>,
    /// What its exit codes mean. One that is not here means that it failed.
    pub exit_codes: BTreeMap<i32, Meaning>,
    /// Where the names of what it found stand in its output.
    pub names: Option<NameLine>,
    /// A program and its arguments that end with 0 when the module is ready; the first line of the output is the
    /// engine and its version. Without one the program has to be there and executable.
    pub probe: Option<(PathBuf, Vec<String>)>,
    /// The longest time for one message; less where the host grants less silence.
    pub time_max: Duration,
    /// The largest message that it is given, in bytes. What it would skip unasked must not be given to it.
    pub bytes_max: u64,
    /// Programs at once, at least one.
    pub concurrency: usize,
    /// Where each run has a folder of its own, gone when it ends.
    pub scratch_dir: PathBuf,
}

impl CommandConfig {
    /// A program that reads standard input, says clean with 0, and fails with anything else.
    pub fn new(
        name: impl Into<String>,
        provides: impl Into<String>,
        program: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            provides: provides.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            exit_codes: BTreeMap::from([(0, Meaning::Clean)]),
            names: None,
            probe: None,
            time_max: Duration::from_secs(60),
            bytes_max: 25 << 20,
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            scratch_dir: std::env::temp_dir(),
        }
    }

    /// Whether the message is given as a file rather than on standard input.
    pub fn takes_file(&self) -> bool {
        self.arguments.contains(&Argument::File)
    }
}

/// One argument, always a whole one: there is no shell, and nothing of a message becomes part of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    /// `{file}`: the path of a private file with the message.
    File,
}

/// What an exit code says of a message, or of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Clean,
    Found,
    /// It did not look at the message, and says so.
    Unscanned,
    Encrypted,
    Malformed,
    OverBudget,
    /// It broke down, perhaps because of the message: the attempt counts.
    Failed,
    /// It cannot work whatever the message: no licence, no signatures.
    Unavailable,
}

/// A line of output that begins and ends like this has a name in between. `{file}` stands for the file's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameLine {
    pub prefix: String,
    pub suffix: String,
}

impl NameLine {
    /// The names in an output, each once, at most `names_max`.
    pub(super) fn names(&self, output: &str, file: &str, names_max: usize) -> Vec<String> {
        let (prefix, suffix) =
            (self.prefix.replace("{file}", file), self.suffix.replace("{file}", file));
        let mut names: Vec<String> = Vec::new();
        for line in output.lines() {
            let between = line.strip_prefix(&*prefix).and_then(|rest| rest.strip_suffix(&*suffix));
            let Some(name) = between.map(str::trim).filter(|name| !name.is_empty()) else {
                continue;
            };
            if names.len() < names_max && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_between_their_marks_and_nowhere_else() {
        let line = NameLine { prefix: "{file}: ".into(), suffix: " FOUND".into() };
        let output = "/t/m: Eicar FOUND\r\n/t/m: Eicar FOUND\n/t/m: Other FOUND\n/t/m:  FOUND\n\
                      /t/m FOUND\n/x/m: Else FOUND\n/t/m: OK\nInfected files: 1\n";
        assert_eq!(line.names(output, "/t/m", 9), ["Eicar", "Other"]);
        assert_eq!(line.names(output, "/t/m", 1), ["Eicar"]);
        assert!(line.names("FOUND", "/t/m", 9).is_empty());
        // Marks that overlap name nothing.
        let tight = NameLine { prefix: "a b".into(), suffix: "b c".into() };
        assert!(tight.names("a b c", "", 9).is_empty());
    }
}
