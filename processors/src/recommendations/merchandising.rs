//! The shop's own hand in what is shown: pin, boost, bury and block by product, category or tag.

use super::ranking::{Candidate, Shop};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tillflow_schemas::Product;

/// One rule. It concerns the products that all of its `product`, `category` and `tag` (those given) fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MerchandisingRule {
    /// What is done with them.
    pub action: MerchandisingAction,
    /// A product's id.
    #[serde(default)]
    pub product: Option<String>,
    /// A category.
    #[serde(default)]
    pub category: Option<String>,
    /// A tag of the catalogue.
    #[serde(default)]
    pub tag: Option<String>,
    /// What a boosted score is multiplied, a buried one divided by; 2 where absent.
    #[serde(default)]
    pub factor: Option<f64>,
}

/// What is done with the products of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MerchandisingAction {
    /// They come first; a pinned product also where nothing leads to it.
    Pin,
    /// Their score is multiplied.
    Boost,
    /// Their score is divided.
    Bury,
    /// They are never shown.
    Block,
}

impl MerchandisingRule {
    /// What is wrong with the rule.
    pub fn problem(&self) -> Option<String> {
        if self.product.is_none() && self.category.is_none() && self.tag.is_none() {
            return Some("names no product, category or tag".into());
        }
        self.factor.filter(|f| !(f.is_finite() && *f > 0.0)).map(|f| format!("has the factor {f}; it must be above 0"))
    }

    fn fits(&self, product: &str, record: Option<&Product>) -> bool {
        self.product.as_ref().is_none_or(|p| p == product)
            && self.category.as_ref().is_none_or(|c| record.is_some_and(|r| r.category == *c))
            && self.tag.as_ref().is_none_or(|t| record.is_some_and(|r| r.tags.contains(t)))
    }

    fn factor(&self) -> f64 {
        match self.action {
            MerchandisingAction::Boost => self.factor.unwrap_or(2.0),
            MerchandisingAction::Bury => 1.0 / self.factor.unwrap_or(2.0),
            MerchandisingAction::Pin | MerchandisingAction::Block => 1.0,
        }
    }
}

/// The rules of the shop.
pub struct Merchandising<'a>(&'a [MerchandisingRule]);

impl<'a> Merchandising<'a> {
    /// The rules, in their order.
    pub fn new(rules: &'a [MerchandisingRule]) -> Self {
        Self(rules)
    }

    fn of(&self, product: &str, shop: &impl Shop) -> impl Iterator<Item = &'a MerchandisingRule> {
        let record: Option<Arc<Product>> = if self.0.is_empty() { None } else { shop.product(product) };
        self.0.iter().filter(move |rule| rule.fits(product, record.as_deref()))
    }

    /// Whether a product is never shown.
    pub fn blocks(&self, product: &str, shop: &impl Shop) -> bool {
        self.of(product, shop).any(|rule| rule.action == MerchandisingAction::Block)
    }

    /// What comes first: pinned products in the order of their rules, then candidates of pinned categories and tags.
    pub fn pinned<'c>(&self, candidates: &[Vec<Candidate<'c>>], shop: &impl Shop) -> Vec<Candidate<'c>>
    where
        'a: 'c,
    {
        let pins = || self.0.iter().filter(|rule| rule.action == MerchandisingAction::Pin);
        let mut pinned = Vec::new();
        for product in pins().filter_map(|rule| rule.product.as_deref()) {
            if self.of(product, shop).any(|rule| rule.action == MerchandisingAction::Pin) {
                let found = candidates.iter().flatten().find(|c| c.product == product).copied();
                pinned.push(found.unwrap_or_else(|| Candidate::popular(product, 0.0)));
            }
        }
        if pins().any(|rule| rule.product.is_none()) {
            let fits = |c: &&Candidate<'_>| self.of(c.product, shop).any(|rule| rule.action == MerchandisingAction::Pin);
            pinned.extend(candidates.iter().flatten().filter(fits).copied());
        }
        pinned
    }

    /// A group of candidates with boosts and burials applied, best first.
    pub fn reordered<'c>(&self, mut group: Vec<Candidate<'c>>, shop: &impl Shop) -> Vec<Candidate<'c>> {
        if self.0.iter().any(|rule| matches!(rule.action, MerchandisingAction::Boost | MerchandisingAction::Bury)) {
            for candidate in &mut group {
                let factor: f64 = self.of(candidate.product, shop).map(MerchandisingRule::factor).product();
                candidate.score = super::association::rounded(candidate.score * factor);
            }
            Candidate::sort(&mut group);
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::{ProductStatus, RelatedProducts};

    struct Catalogue;

    impl Shop for Catalogue {
        fn related(&self, _: &str) -> Option<Arc<RelatedProducts>> {
            None
        }
        fn product(&self, product: &str) -> Option<Arc<Product>> {
            let (category, tag) = product.split_once('-')?;
            Some(Arc::new(Product { product_id: product.into(), category: category.into(), tags: vec![tag.into()], ..Product::default() }))
        }
        fn status(&self, _: &str) -> Option<Arc<ProductStatus>> {
            None
        }
    }

    fn rules(value: serde_json::Value) -> Vec<MerchandisingRule> {
        serde_json::from_value(value).unwrap()
    }

    fn candidates<'a>(of: &[(&'a str, f64)]) -> Vec<Candidate<'a>> {
        of.iter().map(|(product, score)| Candidate::popular(product, *score)).collect()
    }

    fn names<'a>(candidates: &[Candidate<'a>]) -> Vec<&'a str> {
        candidates.iter().map(|c| c.product).collect()
    }

    #[test]
    fn boosted_goods_rise_and_buried_ones_sink() {
        let rules = rules(serde_json::json!([
            {"action": "boost", "tag": "new"}, {"action": "bury", "category": "cup", "factor": 4}, {"action": "bury", "product": "unlisted"}]));
        let group = candidates(&[("cup-old", 0.5), ("tea-old", 0.4), ("tea-new", 0.3), ("cup-new", 0.2)]);
        let group = Merchandising::new(&rules).reordered(group, &Catalogue);
        assert_eq!(names(&group), ["tea-new", "tea-old", "cup-old", "cup-new"]);
        assert_eq!(group[0].score, 0.6);
    }

    #[test]
    fn pinned_goods_come_first_and_blocked_ones_never() {
        let rules = rules(serde_json::json!([
            {"action": "pin", "product": "mug-of-the-week"}, {"action": "pin", "tag": "new"}, {"action": "block", "category": "rum"}]));
        let rules = Merchandising::new(&rules);
        let groups = [candidates(&[("tea-old", 0.4), ("tea-new", 0.3)])];
        assert_eq!(names(&rules.pinned(&groups, &Catalogue)), ["mug-of-the-week", "tea-new"]);
        assert!(rules.blocks("rum-old", &Catalogue) && !rules.blocks("tea-old", &Catalogue) && !rules.blocks("unlisted", &Catalogue));
    }

    #[test]
    fn a_rule_for_nothing_or_with_a_factor_of_nothing_is_named() {
        let problem = |value| rules(serde_json::json!([value]))[0].problem();
        assert!(problem(serde_json::json!({"action": "block"})).is_some());
        assert!(problem(serde_json::json!({"action": "boost", "tag": "new", "factor": 0})).is_some());
        assert!(problem(serde_json::json!({"action": "boost", "tag": "new"})).is_none());
    }
}
