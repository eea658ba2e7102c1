//! Runs the stages of steps: in their order on one session, or side by side on several.

use std::collections::{HashMap, HashSet};

use super::Run;
use crate::config::Secret;
use crate::copy::steps::special::{ROLE_PASSWORD, SUBSCRIPTION, mapping_password, role_password, subscription_to};
use crate::error::Result;
use crate::report::Event;
use crate::source::{roles, subscriptions};
use crate::target::objects::Outcome;
use crate::target::queue::{self, Step};
use crate::target::rounds::{self, Manner};

impl Run {
    /// Runs a stage, statistics side by side behind the rest of it.
    pub(super) async fn stage(&self, stage: &str) -> Result<()> {
        let steps = queue::pending_steps(&self.target, &self.config.name, stage).await?;
        let (statistics, steps): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(|step| step.kind == "ANALYZE");
        // What is in the way goes before anything is made.
        let (drops, steps): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(|step| step.kind == "DROP");
        let manner = Manner { secrets: self.secrets(&steps).await?, ..self.manner() };
        for steps in [drops, steps] {
            if !steps.is_empty() {
                let settings = [("check_function_bodies", "off"), ("xmloption", "content")];
                let client = self.target_client("pgmig schema", &settings).await?;
                rounds::in_order(&client, steps, &manner, &mut |step, outcome| self.told(step, outcome)).await?;
            }
        }
        self.beside(statistics, &HashMap::new()).await.map(drop)
    }

    /// Fills the materialized views, each behind those that it reads.
    pub(super) async fn refresh(&self) -> Result<()> {
        let steps = queue::pending_steps(&self.target, &self.config.name, "refresh").await?;
        if steps.is_empty() {
            return Ok(());
        }
        let needs = rounds::view_needs(&self.target).await?;
        self.beside(steps, &needs).await.map(drop)
    }

    /// Runs steps side by side; returns those that failed and stop nothing.
    pub(super) async fn beside(&self, steps: Vec<Step>, needs: &HashMap<String, HashSet<String>>) -> Result<Vec<Step>> {
        let (mut clients, mut failed) = (Vec::new(), Vec::new());
        for _ in 0..self.config.restore_jobs.min(steps.len()) {
            clients.push(self.target_client("pgmig schema", &[]).await?);
        }
        rounds::beside(clients, steps, needs, &self.manner(), &mut |step, outcome| {
            if matches!(outcome, Outcome::Failed { .. }) {
                failed.push(step.clone());
            }
            self.told(step, outcome);
        })
        .await?;
        Ok(failed)
    }

    pub(super) fn manner(&self) -> Manner {
        Manner { fail_fast: self.config.fail_fast, ..Manner::default() }
    }

    pub(super) fn told(&self, step: &Step, outcome: Outcome) {
        if let Outcome::Failed { sqlstate, message } = outcome {
            let (kind, name) = (step.kind.clone(), step.name.clone());
            self.report.send(Event::StepFailed { kind, name, sqlstate, message });
        }
    }

    /// The statements of steps that are stored without a password, with it: read from the source again,
    /// and kept in memory only.
    async fn secrets(&self, steps: &[Step]) -> Result<HashMap<String, Secret>> {
        let mut secrets = HashMap::new();
        let of_subscriptions: Vec<&Step> = steps.iter().filter(|step| step.kind == SUBSCRIPTION).collect();
        if of_subscriptions.is_empty() && !steps.iter().any(|step| step.kind.ends_with("PASSWORD")) {
            return Ok(secrets);
        }
        let source = self.source_client("pgmig run").await?;
        let of_roles: Vec<String> =
            steps.iter().filter(|step| step.kind == ROLE_PASSWORD).map(|step| step.name.clone()).collect();
        if !of_roles.is_empty() {
            for (role, password) in roles::passwords(&source, &of_roles).await? {
                let real = Secret::new(role_password(&role, password.reveal()));
                secrets.insert(role_password(&role, "***"), real);
            }
        }
        for secret in roles::mapping_secrets(&source).await? {
            let (stored, real) = mapping_password(&secret);
            secrets.insert(stored, Secret::new(real));
        }
        if !of_subscriptions.is_empty() {
            for (name, conninfo) in subscriptions::connections(&source).await? {
                let step = of_subscriptions.iter().find(|step| step.name == name);
                let real = step.and_then(|step| Some((step, subscription_to(&step.statement, conninfo.reveal())?)));
                secrets.extend(real.map(|(step, real)| (step.statement.clone(), Secret::new(real))));
            }
        }
        Ok(secrets)
    }
}
