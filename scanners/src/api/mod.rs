//! What a module is: something that looks at one message at a time and says what it found.

mod progress;
mod source;

use std::pin::Pin;
use std::sync::Arc;

use gantry_mail::Envelope;
use gantry_protocol::verdict::Finding;

pub use self::progress::{Progress, ProgressState};
pub use self::source::{Source, SourceFile};

/// What a module's methods return: boxed, so that `dyn Module` works.
pub type ModuleFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One processing step.
///
/// **Cancelling** is dropping the future: a module lets go of what it holds for the message, and a thread that
/// works for it ends at the next piece.
pub trait Module: Send + Sync {
    /// As configured; unique within a worker.
    fn name(&self) -> &str;

    /// The need that it meets.
    fn provides(&self) -> &str;

    /// How many messages it works on at once, at least one. Further calls of [`Module::process`] wait their turn,
    /// and a message that waits makes no progress: start no more than this.
    fn concurrency(&self) -> usize;

    /// How it is now. Answers within seconds, also when the engine hangs.
    fn probe(&self) -> ModuleFuture<'_, ModuleState>;

    /// Looks at a message. The outcome of the finding is [`Unscanned`] only where the engine itself says that it did
    /// not look; when it says nothing, that is an error.
    ///
    /// [`Unscanned`]: gantry_protocol::verdict::Outcome::Unscanned
    fn process<'a>(&'a self, job: &'a Job) -> ModuleFuture<'a, Result<Finding, ModuleError>>;

    /// Reads again what the module read when it was made: rules, keys. On an error the former stay in use.
    fn reload(&self) -> ModuleFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// One message for one module.
#[derive(Clone, Debug)]
pub struct Job {
    /// For logs: names the message and its host.
    pub message_id: String,
    pub envelope: Arc<Envelope>,
    pub source: Source,
    /// One for each module that works on the message; advanced by work alone.
    pub progress: Progress,
}

/// How a module is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleState {
    /// Engine and version; empty until it has said so.
    pub engine: String,
    /// Version or date of its signatures; empty where there are none.
    pub signatures: String,
    /// `None` when it is ready, else why it is not, in a sentence.
    pub not_ready: Option<String>,
}

/// Why there is no finding, and by that whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// The module cannot work, whatever the message: hand it back, no attempt counts.
    #[error("{module} is unavailable: {reason}")]
    Unavailable { module: String, reason: String },
    /// There was no answer about this message, which may be to blame: the attempt counts.
    #[error("{module} failed: {reason}")]
    Failed { module: String, reason: String },
}
