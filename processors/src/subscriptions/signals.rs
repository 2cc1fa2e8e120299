//! What other tasks and the gateway tell a customer's owner (`customer_signals`):
//!
//! - `reserved`, `refused` {box_id, product_id}: answers about a box's products;
//! - `feature_granted` {feature, value? (true), until?, override? (false)}, `feature_revoked` {feature};
//! - `feature_denied` {feature}: somebody asked for the feature and was denied. A query only reads, so whoever answers
//!   one tells it here; this, not the query, suggests a higher plan, at most once in the days configured.

use super::{
    Subscriptions,
    features::has_feature,
    plans::PlanVersion,
    proration,
    standing::{Grant, Standing},
    stock::{REFUSED, RESERVED},
};
use serde_json::{Value, json};
use tillflow_engine_api::{Context, Error, Result};
use tillflow_schemas::{CustomerSignal, Timestamp, minor_digits};

/// Grants kept of a customer.
const GRANTS_KEPT: usize = 100;

impl Subscriptions {
    pub(super) fn hear(&self, signal: &CustomerSignal, cx: &mut Context<'_>) -> Result<()> {
        match signal.kind.as_str() {
            RESERVED => self.packing.answered(signal, true, cx),
            REFUSED => self.packing.answered(signal, false, cx),
            "feature_granted" => self.grant(signal, cx),
            "feature_revoked" => {
                let feature = feature(signal)?;
                cx.delete(&self.tables.grants, &(signal.user_id.clone(), feature.to_owned()));
                cx.cancel_timer(self.timers.grant_end, signal.user_id.as_str(), feature)?;
                self.entitle(&signal.user_id, cx)
            }
            "feature_denied" => self.suggest(signal, cx),
            _ => Ok(()),
        }
    }

    fn grant(&self, signal: &CustomerSignal, cx: &mut Context<'_>) -> Result<()> {
        let (user, feature) = (&signal.user_id, feature(signal)?);
        let until: Option<Timestamp> = match signal.data.get("until") {
            None | Some(Value::Null) => None,
            Some(until) => Some(serde_json::from_value(until.clone()).map_err(|e| Error::reject(format!("until: {e}")))?),
        };
        if until.is_some_and(|until| until <= cx.now()) {
            return Err(Error::reject("until: lies in the past; the grant would never count"));
        }
        let is_override = signal.data.get("override").is_some_and(|v| v.as_bool().unwrap_or_default());
        let value = signal.data.get("value").unwrap_or(&Value::Bool(true)).to_string();
        let key = (user.clone(), feature.to_owned());
        if cx.get(&self.tables.grants, &key)?.is_none() && cx.rows(&self.tables.grants, user)?.len() >= GRANTS_KEPT {
            return Err(Error::reject(format!("the customer already has {GRANTS_KEPT} grants")));
        }
        cx.put(&self.tables.grants, &key, &Grant { value, until, is_override })?;
        match until {
            Some(until) => cx.set_timer(self.timers.grant_end, user.as_str(), feature, until)?,
            None => cx.cancel_timer(self.timers.grant_end, user.as_str(), feature)?,
        }
        self.entitle(user, cx)
    }

    /// Suggests the cheapest higher plan that has the feature denied.
    fn suggest(&self, signal: &CustomerSignal, cx: &mut Context<'_>) -> Result<()> {
        let (user, feature) = (&signal.user_id, feature(signal)?);
        let mut member = cx.get(&self.tables.members, user)?.unwrap_or_default();
        let gap = self.rules.settings.suggestion_gap();
        if member.suggested_at.is_some_and(|at| cx.now() < at + gap) {
            return Ok(());
        }
        let standing = self.standing(user, cx)?;
        if standing.answer(feature).0 {
            return Ok(());
        }
        let sold = self.rules.plans.all_sold(cx);
        let Some(plan) = self.rules.higher_with(feature, &standing, &sold) else { return Ok(()) };
        let price = plan.price.rounded(minor_digits(plan.currency.as_deref()));
        let data = json!({"feature": feature, "plan_id": plan.plan_id, "plan": plan.name, "price": price, "currency": plan.currency});
        let title = format!("{} has {feature}", plan.name);
        member.suggested_at = Some(cx.now());
        cx.put(&self.tables.members, user, &member)?;
        self.notify(user, "upgrade_suggested", title, data, cx)
    }
}

impl super::Rules {
    /// The cheapest plan above the one that counts that has `feature`; any plan is above none. `sold` is sorted by
    /// price.
    pub(super) fn higher_with<'a>(&self, feature: &str, standing: &Standing, sold: &'a [PlanVersion]) -> Option<&'a PlanVersion> {
        let present = standing.plan_id.as_ref().and_then(|id| sold.iter().find(|plan| plan.plan_id == *id));
        let floor = present.map(|plan| proration::a_year(plan, &self.shop));
        sold.iter()
            .filter(|plan| floor.is_none_or(|floor| proration::a_year(plan, &self.shop) > floor))
            .find(|plan| has_feature(plan.values().get(feature)))
    }
}

fn feature(signal: &CustomerSignal) -> Result<&str> {
    let feature = signal.data.get("feature").and_then(Value::as_str).filter(|feature| !feature.is_empty());
    feature.ok_or_else(|| Error::reject("feature is missing"))
}
