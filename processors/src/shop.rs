//! The `shop` section of the configuration: what every system needs to know of the shop itself.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tillflow_engine_api::{Error, Result};
use tillflow_schemas::Money;

/// The `shop` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShopSettings {
    /// ISO 4217 code; unset, amounts count at face value whatever their currency.
    pub currency: Option<String>,
    /// What one unit of another currency is worth in the shop's.
    pub rates: BTreeMap<String, Money>,
    /// IANA name, such as `Europe/Berlin`; UTC where unset.
    pub timezone: Option<String>,
    /// Days for which a refund or cancellation waits for the order it names before it becomes a dead letter.
    pub refund_hold_days: u32,
}

impl Default for ShopSettings {
    fn default() -> Self {
        Self { currency: None, rates: BTreeMap::new(), timezone: None, refund_hold_days: 30 }
    }
}

impl ShopSettings {
    /// `amount` in the shop's currency.
    ///
    /// # Errors
    /// When the shop has a currency and no rate for this one: the record goes to the dead letters.
    pub fn value(&self, amount: Money, currency: Option<&str>) -> Result<Money> {
        let (Some(own), Some(other)) = (self.currency.as_deref(), currency) else { return Ok(amount) };
        if own == other {
            return Ok(amount);
        }
        let rate = self.rates.get(other).ok_or_else(|| {
            Error::reject(format!("currency: no rate from {other} to {own}; add shop.rates.{other} to the configuration"))
        })?;
        let value = amount.decimal().checked_mul(rate.decimal()).ok_or_else(|| Error::reject("an amount beyond what a decimal holds"))?;
        Ok(Money::from(value).rounded(tillflow_schemas::minor_digits(Some(own))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_money_is_converted_or_refused_once_the_shop_has_a_currency() {
        let money = |text| Money::parse(text).unwrap();
        assert_eq!(ShopSettings::default().value(money("5"), Some("USD")).unwrap(), money("5"));
        let shop = ShopSettings { currency: Some("EUR".into()), rates: [("USD".into(), money("0.9"))].into(), ..ShopSettings::default() };
        assert_eq!(shop.value(money("5"), Some("EUR")).unwrap(), money("5"));
        assert_eq!(shop.value(money("5.05"), Some("USD")).unwrap(), money("4.54"));
        assert!(shop.value(money("5"), Some("GBP")).unwrap_err().to_string().contains("shop.rates.GBP"));
    }
}
