//! Plans: the built-in ones, the shop's own, and the version of one that a subscriber bought.

use super::{calendar::Interval, proration, settings::SubscriptionSettings};
use crate::shop::ShopSettings;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use tillflow_engine_api::{Context, Declare, Error, Global, Query, Result};
use tillflow_schemas::{Money, Plan, PlanId};

/// A plan as it was when it was bought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanVersion {
    /// Which plan.
    pub plan_id: PlanId,
    /// Shown to people.
    pub name: String,
    /// Of one period.
    pub price: Money,
    /// ISO 4217 code, where stated.
    pub currency: Option<String>,
    /// How long a period is.
    pub interval: Interval,
    /// Counts up with each change of the plan.
    pub version: u64,
    /// Values by feature, each as JSON text: what is stored can't hold JSON values.
    pub features: BTreeMap<String, String>,
}

impl PlanVersion {
    /// A version as stated.
    ///
    /// # Errors
    /// When its interval is none.
    pub fn of(plan: &Plan) -> Result<Self> {
        let interval = Interval::parse(&plan.interval)
            .ok_or_else(|| Error::reject(format!("interval: '{}' is not week, month, quarter or year", plan.interval)))?;
        Ok(Self {
            plan_id: plan.plan_id.clone(),
            name: if plan.name.is_empty() { plan.plan_id.to_string() } else { plan.name.clone() },
            price: plan.price,
            currency: plan.currency.clone(),
            interval,
            version: plan.version,
            features: plan.features.iter().map(|(feature, value)| (feature.clone(), value.to_string())).collect(),
        })
    }

    /// Its features as values.
    pub fn values(&self) -> BTreeMap<String, Value> {
        self.features.iter().map(|(feature, text)| (feature.clone(), json(text))).collect()
    }
}

/// Refuses plans that are priced in a currency without a rate to the shop's, those configured and those stated later.
pub fn check_currencies(configured: &[Plan], shop: &ShopSettings, d: &mut Declare<'_>) {
    let shop = shop.clone();
    let check = move |plan: &Plan| shop.value(plan.price, plan.currency.as_deref()).map(drop).map_err(|e| e.to_string());
    for (i, problem) in configured.iter().enumerate().filter_map(|(i, plan)| Some((i, check(plan).err()?))) {
        d.problem(format!("subscriptions.plans[{i}]: {problem}"));
    }
    d.check(check);
}

/// The value of stored JSON text.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// The plans a processor knows: stated on the topic, else in the configuration, else built in.
#[derive(Clone, Debug)]
pub struct Plans {
    stated: Global<Plan>,
    known: BTreeMap<String, Plan>,
    shop: ShopSettings,
}

impl Plans {
    /// Plans of the topic over those of the configuration.
    pub fn new(stated: Global<Plan>, settings: &SubscriptionSettings, shop: ShopSettings) -> Self {
        let built_in = if settings.built_in_plans { built_in().to_vec() } else { Vec::new() };
        let known = built_in.into_iter().chain(settings.plans.iter().cloned()).map(|p| (p.plan_id.to_string(), p)).collect();
        Self { stated, known, shop }
    }

    /// The version of a plan that is sold now.
    ///
    /// # Errors
    /// When there is no such plan; the message names those there are.
    pub fn sold(&self, id: &PlanId, cx: &Context<'_>) -> Result<PlanVersion> {
        if id.as_str().is_empty() {
            return Err(Error::reject("plan_id is missing"));
        }
        match cx.lookup(&self.stated, id.as_str()) {
            Some(plan) => PlanVersion::of(&plan),
            None => PlanVersion::of(self.known.get(id.as_str()).ok_or_else(|| {
                let names: Vec<_> = self.all(cx.lookup_all(&self.stated)).into_iter().map(|p| p.plan_id.into_string()).collect();
                Error::reject(format!("plan_id: there is no plan '{id}'; there are {}", shorten(&names)))
            })?),
        }
    }

    /// All plans sold now, cheapest first, then by id.
    pub fn all_sold(&self, cx: &Context<'_>) -> Vec<PlanVersion> {
        self.all(cx.lookup_all(&self.stated))
    }

    /// As [`Plans::all_sold`], for a query.
    pub fn all_sold_to(&self, q: &Query<'_>) -> Vec<PlanVersion> {
        self.all(q.lookup_all(&self.stated))
    }

    fn all<'a>(&self, stated: impl Iterator<Item = (&'a str, &'a std::sync::Arc<Plan>)>) -> Vec<PlanVersion> {
        let mut plans: BTreeMap<&str, &Plan> = self.known.iter().map(|(id, plan)| (id.as_str(), plan)).collect();
        plans.extend(stated.map(|(id, plan)| (id, &**plan)));
        let mut plans: Vec<_> = plans.into_values().filter_map(|plan| PlanVersion::of(plan).ok()).collect();
        plans.sort_by_cached_key(|plan| (proration::a_year(plan, &self.shop), plan.plan_id.clone()));
        plans
    }
}

fn shorten(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

/// Basic, Premium and Deluxe Box.
pub fn built_in() -> [Plan; 3] {
    let plan = |id: &str, name: &str, cents: i64, features: &[(&str, &str)]| Plan {
        plan_id: id.into(),
        name: name.into(),
        price: Money::from(Decimal::new(cents, 2)),
        interval: "month".into(),
        version: 1,
        features: features.iter().map(|(feature, value)| ((*feature).to_owned(), Value::from(*value))).collect(),
        ..Plan::default()
    };
    [
        plan("basic_box", "Basic Box", 2999, &[("target_item_count", "4"), ("exclusive_item", "false"), ("shipping_speed", "standard")]),
        plan(
            "premium_box",
            "Premium Box",
            5999,
            &[
                ("target_item_count", "6"),
                ("exclusive_item", "true"),
                ("num_exclusive_items", "1"),
                ("shipping_speed", "standard"),
                ("early_access", "true"),
            ],
        ),
        plan(
            "deluxe_box",
            "Deluxe Box",
            9999,
            &[
                ("target_item_count", "8"),
                ("exclusive_item", "true"),
                ("num_exclusive_items", "3"),
                ("shipping_speed", "priority"),
                ("personalized_recommendations", "true"),
                ("early_access", "true"),
                ("dedicated_support", "true"),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_built_in_plans_have_their_prices_and_features() {
        let [basic, premium, deluxe] = built_in();
        assert_eq!((basic.plan_id.as_str(), basic.price.to_string()), ("basic_box", "29.99".into()));
        assert_eq!((premium.plan_id.as_str(), premium.price.to_string()), ("premium_box", "59.99".into()));
        assert_eq!((deluxe.plan_id.as_str(), deluxe.price.to_string()), ("deluxe_box", "99.99".into()));
        assert_eq!(basic.features["exclusive_item"], "false");
        assert_eq!(premium.features.len(), 5);
        assert_eq!(deluxe.features.len(), 7);
        assert_eq!(deluxe.features["num_exclusive_items"], "3");
    }

    #[test]
    fn a_version_keeps_what_was_stated_and_its_values_come_back() {
        let plan = Plan { features: [("seats".into(), 4.into()), ("logo".into(), "x".into())].into(), ..built_in()[0].clone() };
        let version = PlanVersion::of(&plan).unwrap();
        assert_eq!(version.values(), plan.features);
        assert!(PlanVersion::of(&Plan { interval: "day".into(), ..plan }).unwrap_err().to_string().contains("day"));
    }
}
