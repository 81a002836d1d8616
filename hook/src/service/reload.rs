//! Reading the configuration again while the hook runs: the policies that count, and the workers that are dialled. All else needs a
//! restart, and is said to.

use gantry_operator::Reply;

use super::Service;
use super::action::{Action, Reloaded};
use super::operate::answer;
use crate::admin::Asked;
use crate::config::Config;
use crate::disk::Disk;

impl<D: Disk> Service<D> {
    /// Certificates and revocations at once, the configuration on a blocking thread.
    pub(super) fn reload(&mut self, asked: Option<Asked>) {
        self.look_again();
        let (path, actions) = (self.config_path.clone(), self.actions.clone());
        tokio::task::spawn_blocking(move || {
            let read = Config::load(&path);
            let _ = actions.blocking_send(Action::Reloaded(Box::new(Reloaded { read, asked })));
        });
    }

    /// A file with mistakes changes nothing.
    pub(super) fn on_reloaded(&mut self, Reloaded { read, asked }: Reloaded) {
        let reply = match read {
            Ok(newer) => Reply::Reloaded(self.take_over(newer)),
            Err(mistakes) => {
                let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                tracing::error!(
                    "the configuration was not read again, the former one counts: {}",
                    told.join("; ")
                );
                Reply::Refused(format!("the former configuration counts on:\n{}", told.join("\n")))
            }
        };
        if let Some(asked) = asked {
            answer(asked, reply);
        }
    }

    /// Gives the keys that changed and need a restart.
    fn take_over(&mut self, newer: Config) -> Vec<String> {
        let restart = self.config.needs_restart(&newer);
        if !restart.is_empty() {
            let keys = restart.join(", ");
            tracing::warn!("these keys have changed and count after a restart: {keys}");
        }
        let Config { policy, policy_also, workers, .. } = newer;
        if (policy, policy_also) != (self.config.policy, self.config.policy_also) {
            match &policy_also {
                Some(also) => tracing::info!(%policy, %also, "these policies count now"),
                None => tracing::info!(%policy, "this policy counts now"),
            }
        }
        self.pool.handle_policies(policy, policy_also, self.clock.now());
        self.dialling.set(&self.server.dialler(), &workers);
        (self.config.policy, self.config.policy_also) = (policy, policy_also);
        self.config.workers = workers;
        restart
    }
}
