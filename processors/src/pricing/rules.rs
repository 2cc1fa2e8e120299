//! Which parameters count for a product: the rules of its scopes, merged.

use super::{Layer, PricingParameters};
use std::{collections::HashMap, sync::Arc};
use tillflow_engine_api::{Context, Error, Global, Query, Result};
use tillflow_schemas::PricingRule;

/// Rules read and checked; more than these are read anew.
const READ: usize = 10_000;

/// A rule read; the error says what is wrong with it.
type ReadRule = (Arc<PricingRule>, Result<Arc<Layer>, String>);

/// The rules of a task.
pub struct Rules {
    rules: Global<PricingRule>,
    defaults: PricingParameters,
    /// By scope, to read each version once. Not state: it says nothing that the broadcast table does not.
    read: HashMap<String, ReadRule>,
    /// All rules as they were when last looked at; none after a start, so that the first look finds them changed.
    seen: Option<Vec<Arc<PricingRule>>>,
}

/// The parameters that count for a product.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Scope and version of the most specific rule, such as `category:tea@3`.
    pub rule: String,
    /// Merged; or what is wrong with one of them. A rule that can't be read changes no price: guessing what a shop meant
    /// would be worse.
    pub parameters: Result<PricingParameters, String>,
}

impl Rules {
    /// Over the defaults of the configuration.
    pub fn new(rules: Global<PricingRule>, defaults: PricingParameters) -> Self {
        Self { rules, defaults, read: HashMap::new(), seen: None }
    }

    /// The parameters that count for a product now.
    pub fn in_force(&mut self, category: &str, product: &str, cx: &Context<'_>) -> InForce {
        let rules = self.rules;
        self.merged(category, product, |scope| cx.lookup(&rules, scope))
    }

    /// The same, as a query sees it.
    pub fn in_force_for(&mut self, category: &str, q: &Query<'_>) -> InForce {
        let rules = self.rules;
        self.merged(category, q.key, |scope| q.lookup(&rules, scope))
    }

    fn merged(&mut self, category: &str, product: &str, lookup: impl Fn(&str) -> Option<Arc<PricingRule>>) -> InForce {
        let mut parameters = Ok(self.defaults.clone());
        let mut name = "default".to_owned();
        for scope in ["default".to_owned(), format!("category:{category}"), format!("product:{product}")] {
            let Some(rule) = lookup(&scope) else { continue };
            name = rule.version.map_or_else(|| scope.clone(), |v| format!("{scope}@{v}"));
            match (&mut parameters, self.layer(&scope, rule)) {
                (Ok(merged), Ok(layer)) => merged.merge(&layer),
                (Ok(_), Err(e)) => parameters = Err(format!("{name}: {e}")),
                (Err(_), _) => {}
            }
        }
        if let Ok(merged) = &parameters
            && let Some(problem) = merged.problem()
        {
            parameters = Err(format!("{name}: {problem}"));
        }
        InForce { rule: name, parameters }
    }

    fn layer(&mut self, scope: &str, rule: Arc<PricingRule>) -> Result<Arc<Layer>, String> {
        if let Some((read, layer)) = self.read.get(scope)
            && Arc::ptr_eq(read, &rule)
        {
            return layer.clone();
        }
        let layer = Layer::of(&rule).map(Arc::new);
        if self.read.len() >= READ {
            self.read.clear();
        }
        self.read.insert(scope.to_owned(), (rule, layer.clone()));
        layer
    }

    /// Whether other rules count now than when last asked.
    pub fn have_changed(&mut self, cx: &Context<'_>) -> bool {
        let now = cx.lookup_all(&self.rules);
        if let Some(seen) = &self.seen
            && now.map(|(_, rule)| Arc::as_ptr(rule)).eq(seen.iter().map(Arc::as_ptr))
        {
            return false;
        }
        self.seen = Some(cx.lookup_all(&self.rules).map(|(_, rule)| rule.clone()).collect());
        true
    }

    /// Refuses a rule that can't be read, or that contradicts the default it is merged with: into the dead letters,
    /// where a person sees it.
    ///
    /// # Errors
    /// Names the scope and the parameter.
    pub fn check(&mut self, rule: &PricingRule, cx: &Context<'_>) -> Result<()> {
        let refuse = |problem: String| Error::reject(format!("pricing rule {}: {problem}", rule.scope));
        let layer = Layer::of(rule).map_err(refuse)?;
        let mut merged = self.defaults.clone();
        if rule.scope != "default"
            && let Some(default) = cx.lookup(&self.rules, "default")
            && let Ok(default) = self.layer("default", default)
        {
            merged.merge(&default);
        }
        merged.merge(&layer);
        merged.problem().map_or(Ok(()), |p| Err(refuse(p)))
    }
}
