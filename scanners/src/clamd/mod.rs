//! The ClamAV daemon, over its socket.

mod config;
mod conversation;
mod reply;
mod scans;
#[cfg(feature = "testkit")]
pub mod testkit;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gantry_protocol::text::bounded;
use gantry_protocol::verdict::{Finding, Outcome};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_stream::StreamExt;

pub use self::config::{ClamdAddress, ClamdConfig, NoClamdAddress};
use self::conversation::Conversation;
use self::reply::{Reply, Version};
use self::scans::Scans;
use crate::api::{Job, Module, ModuleError, ModuleFuture, ModuleState};

/// Bytes sent at once, each of which is progress.
const CHUNK_BYTES: usize = 64 * 1024;

/// The module. Holds no connection: each scan and each probe has its own, as clamd's protocol wants it.
pub struct ClamdModule {
    config: ClamdConfig,
    permits: Semaphore,
    scans: Scans,
    /// What clamd last said of itself; findings carry it.
    version: Mutex<Option<Version>>,
}

/// How a scan went, before it is judged.
type Replied = Result<std::io::Result<Vec<u8>>, tokio::time::error::Elapsed>;

impl ClamdModule {
    /// Connects to nothing yet.
    pub fn new(config: ClamdConfig) -> Self {
        let permits = Semaphore::new(config.connections_max.clamp(1, Semaphore::MAX_PERMITS));
        Self { config, permits, scans: Scans::default(), version: Mutex::default() }
    }

    fn failed(&self, reason: impl Into<String>) -> ModuleError {
        ModuleError::Failed { module: self.config.name.clone(), reason: bounded(reason) }
    }

    fn unavailable(&self, reason: impl Into<String>) -> ModuleError {
        ModuleError::Unavailable { module: self.config.name.clone(), reason: bounded(reason) }
    }

    fn conversation(&self) -> Conversation {
        Conversation::new(&self.config.address, self.config.connect_timeout)
    }

    /// PING, and why it was not answered.
    async fn ping(&self) -> Result<(), String> {
        let answer = clamav_client::tokio::ping(self.conversation());
        let bytes = self.answered("PING", answer).await?;
        if bytes != clamav_client::PONG {
            return Err(format!("PING was answered {:?}", String::from_utf8_lossy(&bytes)));
        }
        Ok(())
    }

    /// VERSION, remembered for the findings to come.
    async fn ask_version(&self) -> Result<Version, String> {
        let answer = clamav_client::tokio::get_version(self.conversation());
        let bytes = self.answered("VERSION", answer).await?;
        let version =
            Version::parse(&bytes).map_err(|said| format!("VERSION was answered {said:?}"))?;
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version.clone());
        Ok(version)
    }

    async fn answered(
        &self,
        command: &str,
        answer: impl Future<Output = clamav_client::IoResult>,
    ) -> Result<Vec<u8>, String> {
        let limit = self.config.connect_timeout;
        match timeout(limit, answer).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(format!("ask clamd at {}: {error}", self.config.address)),
            Err(_elapsed) => Err(format!(
                "clamd at {} did not answer {command} within {limit:?}",
                self.config.address
            )),
        }
    }

    async fn known_version(&self) -> Result<Version, ModuleError> {
        let known = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(version) => Ok(version),
            None => self.ask_version().await.map_err(|reason| self.unavailable(reason)),
        }
    }

    async fn state(&self) -> ModuleState {
        let asked = match self.ping().await {
            Ok(()) => self.ask_version().await,
            Err(reason) => Err(reason),
        };
        let not_ready = match &asked {
            Err(reason) => Some(bounded(reason.as_str())),
            Ok(version) => self.is_late().or_else(|| self.is_stale(version)),
        };
        let known = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (engine, signatures) =
            known.map_or_else(Default::default, |known| (known.engine, known.signatures));
        ModuleState { engine, signatures, not_ready }
    }

    fn is_late(&self) -> Option<String> {
        let age = self.scans.oldest().filter(|&age| age > self.scan_is_late_after())?;
        Some(format!("a scan has been waiting for clamd for {} s", age.as_secs()))
    }

    fn is_stale(&self, version: &Version) -> Option<String> {
        version.is_stale(self.config.signatures_age_max?, SystemTime::now())
    }

    /// clamd answers PING while its scanning threads hang or wait for a reload, so the oldest scan says more.
    fn scan_is_late_after(&self) -> Duration {
        self.config.scan_timeout / 2
    }

    async fn scan(&self, job: &Job) -> Result<Finding, ModuleError> {
        // A scan that is given up is followed by a PING, and the silence must cover both.
        let ping_time = self.config.connect_timeout;
        let silence = job.progress.expect_silence(self.config.scan_timeout + 2 * ping_time);
        let scan_time =
            silence.saturating_sub(2 * ping_time).max(silence / 2).min(self.config.scan_timeout);

        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_closed| self.unavailable("it is shutting down"))?;
        let began = Instant::now();
        let version = self.known_version().await?;
        let outcome = match self.over_limits(job.source.length()) {
            Some(outcome) => outcome,
            None => self.converse(job, scan_time).await?,
        };
        Ok(Finding {
            need: self.config.provides.clone(),
            module: self.config.name.clone(),
            engine: version.engine,
            signatures: version.signatures,
            outcome,
            duration_ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
        })
    }

    /// clamd would skip what is above its limits and call it clean.
    fn over_limits(&self, length: u64) -> Option<Outcome> {
        let limit = self.config.stream_bytes_max.min(self.config.scan_bytes_max);
        (length > limit).then(|| Outcome::OverBudget {
            reason: format!("the message has {length} bytes, and clamd takes {limit}"),
        })
    }

    async fn converse(&self, job: &Job, scan_time: Duration) -> Result<Outcome, ModuleError> {
        let conversation = self.conversation();
        let _scan = self.scans.begin();
        let mut unread = None;
        let replied = {
            let chunks = job.source.chunks(CHUNK_BYTES).map_while(|chunk| {
                // Asked for the next one, so the one before has been taken.
                job.progress.advance(1);
                if let Err(error) = &chunk {
                    unread = Some(error.to_string());
                }
                (!conversation.cut_short()).then_some(chunk)
            });
            let scan =
                clamav_client::tokio::scan_stream(chunks, conversation.clone(), Some(CHUNK_BYTES));
            timeout(scan_time, scan).await
        };
        if let Some(error) = unread {
            return Err(self.unavailable(format!("read the message: {error}")));
        }
        self.judge(replied, &conversation, scan_time).await
    }

    async fn judge(
        &self,
        replied: Replied,
        conversation: &Conversation,
        scan_time: Duration,
    ) -> Result<Outcome, ModuleError> {
        let address = &self.config.address;
        let reply = match replied {
            Ok(Ok(bytes)) if bytes.is_empty() => {
                return Err(self.failed("clamd closed the connection without a reply"));
            }
            Ok(Ok(bytes)) => Reply::parse(&bytes),
            Ok(Err(error)) if !conversation.connected() => {
                return Err(self.unavailable(format!("connect to clamd at {address}: {error}")));
            }
            // A message that crashes clamd breaks off its own conversation, so it may be to blame.
            Ok(Err(error)) => return Err(self.failed(format!("talk to clamd: {error}"))),
            Err(_elapsed) => {
                let late = format!("clamd did not answer within {scan_time:?}");
                // Only a clamd that still serves others puts the blame on this message.
                return Err(match self.ping().await {
                    Ok(()) => self.failed(late),
                    Err(reason) => self.unavailable(format!("{late}; {reason}")),
                });
            }
        };
        match reply {
            Reply::Clean if conversation.cut_short() => {
                Err(self.failed("clamd called clean what it had not read to the end"))
            }
            reply => reply.outcome().map_err(|reason| self.failed(reason)),
        }
    }
}

impl Module for ClamdModule {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn provides(&self) -> &str {
        &self.config.provides
    }

    fn concurrency(&self) -> usize {
        self.config.connections_max.max(1)
    }

    fn probe(&self) -> ModuleFuture<'_, ModuleState> {
        Box::pin(self.state())
    }

    fn process<'a>(&'a self, job: &'a Job) -> ModuleFuture<'a, Result<Finding, ModuleError>> {
        Box::pin(self.scan(job))
    }
}
