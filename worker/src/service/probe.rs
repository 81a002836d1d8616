//! Asking the modules how they are, now and then and whenever one was found unavailable.

use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::profile::ModuleProfile;
use gantry_protocol::text::bounded;
use gantry_scanners::api::Module;
use tokio::sync::{Notify, mpsc};

use super::action::Action;
use crate::pipeline::Pipeline;

/// An engine that went away is noticed within this, and one that came back too.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Reports the modules' state until nobody listens.
pub(super) async fn run(pipeline: Pipeline, wake: Arc<Notify>, actions: mpsc::Sender<Action>) {
    loop {
        let modules = probe(pipeline.modules()).await;
        if actions.send(Action::Probed(modules)).await.is_err() {
            return;
        }
        // Whoever waits for it learns soon, and a module that flaps is still not asked without a pause.
        tokio::time::sleep(PROBE_EVERY / 4).await;
        let _ = tokio::time::timeout(PROBE_EVERY, wake.notified()).await;
    }
}

/// All modules at once: each answers within seconds, also when its engine hangs.
pub(super) async fn probe(modules: &[Arc<dyn Module>]) -> Vec<ModuleProfile> {
    let mut asked = Vec::new();
    for module in modules {
        let module = Arc::clone(module);
        asked.push(tokio::spawn(async move {
            let state = module.probe().await;
            ModuleProfile {
                name: module.name().to_owned(),
                provides: module.provides().to_owned(),
                engine: bounded(state.engine),
                signatures: bounded(state.signatures),
                not_ready: state.not_ready.map(bounded),
            }
        }));
    }
    let mut profiles = Vec::new();
    for (module, asked) in modules.iter().zip(asked) {
        profiles.push(asked.await.unwrap_or_else(|broken| ModuleProfile {
            name: module.name().to_owned(),
            provides: module.provides().to_owned(),
            engine: String::new(),
            signatures: String::new(),
            not_ready: Some(bounded(broken.to_string())),
        }));
    }
    profiles
}
