//! Modules from their configuration: one line for each type.

use std::sync::Arc;

use crate::api::Module;
use crate::clamd::{ClamdConfig, ClamdModule};
use crate::command::{CommandConfig, CommandModule};
use crate::yara::{YaraConfig, YaraModule};

/// One `[[module]]` of a worker, resolved.
#[derive(Clone, Debug)]
pub enum ModuleConfig {
    Yara(YaraConfig),
    Clamd(ClamdConfig),
    Command(Box<CommandConfig>),
}

/// A module that cannot be made as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("set up module {module}: {problem}")]
pub struct BuildError {
    pub module: String,
    /// What is wrong, and where: a sentence, or the rule compiler's own lines.
    pub problem: String,
}

impl ModuleConfig {
    /// The names that `type` may have in a configuration.
    pub const TYPES: &[&str] = &["yara", "clamd", "command"];

    pub fn name(&self) -> &str {
        match self {
            Self::Yara(config) => &config.name,
            Self::Clamd(config) => &config.name,
            Self::Command(config) => &config.name,
        }
    }

    pub fn provides(&self) -> &str {
        match self {
            Self::Yara(config) => &config.provides,
            Self::Clamd(config) => &config.provides,
            Self::Command(config) => &config.provides,
        }
    }
}

/// Makes the modules, in the order of their configuration. Reads and compiles rules; connects to nothing, so it
/// also serves to check a configuration.
///
/// # Errors
/// The first module that cannot be made.
pub fn build(configs: Vec<ModuleConfig>) -> Result<Vec<Arc<dyn Module>>, BuildError> {
    configs.into_iter().map(build_one).collect()
}

fn build_one(config: ModuleConfig) -> Result<Arc<dyn Module>, BuildError> {
    Ok(match config {
        ModuleConfig::Yara(config) => Arc::new(YaraModule::new(config)?),
        ModuleConfig::Clamd(config) => Arc::new(ClamdModule::new(config)),
        ModuleConfig::Command(config) => Arc::new(CommandModule::new(*config)),
    })
}
