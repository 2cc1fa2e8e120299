//! What a customer may do now, and why: the newest subscription that counts, the loyalty tier, and grants, in one.

use super::{
    calendar::Calendar,
    features::{Given, Merge, Source, has_feature, merge},
    lifecycle::Subscription,
    plans::json,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use tillflow_schemas::{PlanId, SubscriptionId, Timestamp};

/// The status of a customer who never had a subscription.
pub const NO_STATUS: &str = "none";

/// A feature given to one customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// The value, as JSON text.
    pub value: String,
    /// When it ends; `None` is until revoked.
    pub until: Option<Timestamp>,
    /// Whether it replaces what plan and tier give, rather than being merged with it.
    pub is_override: bool,
}

/// Entitlements as last emitted: what other processors may read (`UserId → Entitled`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entitled {
    /// The plan that counts.
    pub plan_id: Option<PlanId>,
    /// Of the subscription that counts, else of the newest; `none` without any.
    pub status: String,
    /// Merged, typed values by feature, as JSON text.
    pub features: BTreeMap<String, String>,
    /// Since when plan, status and features are these.
    pub since: Timestamp,
    /// When the status ends unless something happens.
    pub until: Option<Timestamp>,
}

impl Entitled {
    /// Whether the customer has a feature.
    pub fn has(&self, feature: &str) -> bool {
        has_feature(self.features.get(feature).map(|text| json(text)).as_ref())
    }
}

/// What a customer may do now, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The plan that counts.
    pub plan_id: Option<PlanId>,
    /// Of the subscription that counts, else of the newest; `none` without any.
    pub status: &'static str,
    /// Merged values by feature.
    pub features: BTreeMap<String, Given>,
    /// When the status ends unless something happens.
    pub until: Option<Timestamp>,
    /// In words, where a feature could have come from.
    sources: String,
}

/// The newest subscription that counts; of those started at one moment the last to arrive.
pub fn counting(subscriptions: &[(SubscriptionId, Subscription)]) -> Option<&(SubscriptionId, Subscription)> {
    newest(subscriptions.iter().filter(|(_, s)| s.counts()))
}

/// The newest of all.
pub fn newest<'a>(subscriptions: impl Iterator<Item = &'a (SubscriptionId, Subscription)>) -> Option<&'a (SubscriptionId, Subscription)> {
    subscriptions.max_by_key(|(_, s)| (s.started_at, s.arrival))
}

/// What gives a customer features beside a subscription.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The loyalty tier's name.
    pub tier: String,
    /// What the tier brings.
    pub benefits: BTreeMap<String, Value>,
    /// Grants by feature.
    pub grants: Vec<(String, Grant)>,
}

impl Standing {
    /// Where a customer with these subscriptions stands.
    pub fn of(
        subscriptions: &[(SubscriptionId, Subscription)],
        beside: &Beside,
        rules: &BTreeMap<String, Merge>,
        calendar: &Calendar,
    ) -> Self {
        let counting = counting(subscriptions);
        let shown = counting.or_else(|| newest(subscriptions.iter())).map(|(_, s)| s);
        let plan = match (counting, shown) {
            (Some((_, s)), _) => format!("plan {} ({})", s.plan.plan_id, s.status.name()),
            (None, Some(s)) => format!("no plan that counts ({} is {})", s.plan.plan_id, s.status.name()),
            (None, None) => "no plan".to_owned(),
        };
        let tier = if beside.tier.is_empty() { String::new() } else { format!(", tier {}", beside.tier) };
        Self {
            plan_id: counting.map(|(_, s)| s.plan.plan_id.clone()),
            status: shown.map_or(NO_STATUS, |s| s.status.name()),
            features: features(counting.map(|(_, s)| s), beside, rules),
            until: counting.and_then(|(_, s)| s.until(calendar)),
            sources: format!("{plan}{tier}"),
        }
    }

    /// Whether the customer has a feature, its value, and why.
    pub fn answer(&self, feature: &str) -> (bool, Option<&Value>, String) {
        match self.features.get(feature) {
            Some(given) if has_feature(Some(&given.value)) => (true, Some(&given.value), given.because.clone()),
            Some(given) => (false, Some(&given.value), format!("{} says {}", given.because, given.value)),
            None => (false, None, format!("nothing gives it: {}", self.sources)),
        }
    }

    /// As emitted at `now`, after `before`.
    pub fn entitled(&self, before: Option<&Entitled>, now: Timestamp) -> Entitled {
        let features = self.features.iter().map(|(f, given)| (f.clone(), given.value.to_string())).collect();
        let is_same = |b: &&Entitled| b.plan_id == self.plan_id && b.status == self.status && b.features == features;
        let since = before.filter(is_same).map_or(now, |b| b.since);
        Entitled { plan_id: self.plan_id.clone(), status: self.status.to_owned(), features, since, until: self.until }
    }
}

/// The features of one subscription (or of none) merged with what else the customer has.
pub fn features(subscription: Option<&Subscription>, beside: &Beside, rules: &BTreeMap<String, Merge>) -> BTreeMap<String, Given> {
    let plan = subscription.map(|s| Source { name: format!("plan {} ({})", s.plan.plan_id, s.status.name()), features: s.plan.values() });
    let tier = Source { name: format!("tier {}", beside.tier), features: beside.benefits.clone() };
    let granted = |is_override: bool| {
        let of_kind = beside.grants.iter().filter(move |(_, grant)| grant.is_override == is_override);
        of_kind.map(|(feature, grant)| {
            let kind = if grant.is_override { "override" } else { "grant" };
            let until = grant.until.map_or(String::new(), |until| format!(" until {until}"));
            Source { name: format!("{kind}{until}"), features: [(feature.clone(), json(&grant.value))].into() }
        })
    };
    let sources: Vec<_> = plan.into_iter().chain([tier]).chain(granted(false)).collect();
    merge(&sources, &granted(true).collect::<Vec<_>>(), rules)
}
