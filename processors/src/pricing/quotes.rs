//! Quotes: a price promised for a cart, signed so that nobody needs to remember it. While it holds, the lower of the
//! quoted and the current price is honoured. Pure; the gateway brings the secret and the prices.
//!
//! ```
//! use std::time::Duration;
//! use tillflow_processors::pricing::{Quote, QuotedPrice, QUOTE_HOLDS};
//! use tillflow_schemas::{Money, Timestamp};
//!
//! let now = Timestamp::from_millis(1_772_323_200_000);
//! let price = QuotedPrice { product_id: "p1".into(), price: Money::parse("110.00").unwrap(), currency: None };
//! let token = Quote { cart_id: Some("c1".into()), expires_at: now + QUOTE_HOLDS, prices: vec![price] }.sign(b"secret").unwrap();
//!
//! let quote = Quote::read(&token, b"secret", now + Duration::from_secs(60)).unwrap();
//! // The price rose meanwhile: the quote is honoured.
//! let current = Money::parse("120.00").unwrap();
//! assert_eq!(quote.honoured(&"p1".into(), current).to_string(), "110.00");
//! ```

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::{fmt::Write, time::Duration};
use tillflow_schemas::{Money, ProductId, Timestamp};

/// How long a quote holds, unless the shop says otherwise.
pub const QUOTE_HOLDS: Duration = Duration::from_secs(60 * 60);
/// Products in one quote, as many as a cart holds.
pub const QUOTE_LIMIT: usize = 1_000;
/// The form of the token, first in it and part of what is signed.
const FORM: &str = "q1";

/// Prices promised for a cart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quote {
    /// Whose cart, where the shop says; the shop compares.
    pub cart_id: Option<String>,
    /// From then on it holds no more.
    pub expires_at: Timestamp,
    /// What was promised.
    pub prices: Vec<QuotedPrice>,
}

/// One promised price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in the outputs")]
pub struct QuotedPrice {
    pub product_id: ProductId,
    pub price: Money,
    pub currency: Option<String>,
}

/// Why a quote is not honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Not made by us, or changed since.
    #[error("quote: not signed by this shop; ask for a new one")]
    Forged,
    /// It held once.
    #[error("quote: expired at {0}; ask for a new one")]
    Expired(Timestamp),
    /// More than fits.
    #[error("quote: {0} products; at most {QUOTE_LIMIT}")]
    TooLarge(usize),
    /// It can't be written or signed.
    #[error("quote: {0}")]
    Unwritable(String),
}

impl Quote {
    /// The quote as a token for the shop's page: letters, digits and dots.
    ///
    /// # Errors
    /// When it holds too many products.
    pub fn sign(&self, secret: &[u8]) -> Result<String, QuoteError> {
        if self.prices.len() > QUOTE_LIMIT {
            return Err(QuoteError::TooLarge(self.prices.len()));
        }
        let json = serde_json::to_vec(self).map_err(|e| QuoteError::Unwritable(e.to_string()))?;
        let signed = format!("{FORM}.{}", hex(&json));
        let mac = mac(&signed, secret)?.finalize().into_bytes();
        Ok(format!("{signed}.{}", hex(&mac)))
    }

    /// Reads a token that was signed with the same secret and still holds.
    ///
    /// # Errors
    /// Forged or expired.
    pub fn read(token: &str, secret: &[u8], now: Timestamp) -> Result<Self, QuoteError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(QuoteError::Forged)?;
        // Compares in constant time.
        mac(signed, secret)?.verify_slice(&unhex(signature).ok_or(QuoteError::Forged)?).map_err(|_| QuoteError::Forged)?;
        let json = signed.strip_prefix(FORM).and_then(|s| unhex(s.strip_prefix('.')?)).ok_or(QuoteError::Forged)?;
        let quote: Self = serde_json::from_slice(&json).map_err(|_| QuoteError::Forged)?;
        if now >= quote.expires_at {
            return Err(QuoteError::Expired(quote.expires_at));
        }
        Ok(quote)
    }

    /// The price to charge: the lower of the promised one and the current one.
    pub fn honoured(&self, product: &ProductId, current: Money) -> Money {
        self.prices.iter().filter(|p| p.product_id == *product).map(|p| p.price).fold(current, Money::min)
    }
}

fn mac(text: &str, secret: &[u8]) -> Result<Hmac<Sha256>, QuoteError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|e| QuoteError::Unwritable(e.to_string()))?;
    // Another use of the same secret never makes a quote.
    mac.update(b"tillflow price quote\0");
    mac.update(text.as_bytes());
    Ok(mac)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::try_from(pair.iter().fold(0, |n, d| n * 16 + d)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_772_323_200_000)
    }
    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }
    fn quote() -> Quote {
        let price = |id: &str, price: &str| QuotedPrice { product_id: id.into(), price: money(price), currency: Some("EUR".into()) };
        Quote { cart_id: Some("c".into()), expires_at: now() + QUOTE_HOLDS, prices: vec![price("p1", "10.00"), price("p2", "20.00")] }
    }

    #[test]
    fn the_lower_of_quoted_and_current_is_honoured_while_it_holds() {
        let token = quote().sign(b"secret").unwrap();
        let read = Quote::read(&token, b"secret", now() + Duration::from_secs(3_599)).unwrap();
        assert_eq!(read, quote());
        assert_eq!(read.honoured(&"p1".into(), money("12")), money("10.00"));
        assert_eq!(read.honoured(&"p1".into(), money("9")), money("9"));
        assert_eq!(read.honoured(&"p3".into(), money("9")), money("9"), "what was not quoted costs what it costs");
        assert_eq!(Quote::read(&token, b"secret", now() + QUOTE_HOLDS), Err(QuoteError::Expired(now() + QUOTE_HOLDS)));
    }

    #[test]
    fn a_quote_that_was_changed_or_made_elsewhere_is_refused() {
        let token = quote().sign(b"secret").unwrap();
        assert_eq!(Quote::read(&token, b"other", now()), Err(QuoteError::Forged));
        for i in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[i] = if changed[i] == b'0' { b'1' } else { b'0' };
            assert_eq!(Quote::read(&String::from_utf8(changed).unwrap(), b"secret", now()), Err(QuoteError::Forged), "{i}");
        }
        for text in ["", ".", "q1..", "ünïcode.ä"] {
            assert_eq!(Quote::read(text, b"secret", now()), Err(QuoteError::Forged), "{text}");
        }
        let many = Quote { prices: vec![quote().prices[0].clone(); QUOTE_LIMIT + 1], ..quote() };
        assert_eq!(many.sign(b"secret"), Err(QuoteError::TooLarge(QUOTE_LIMIT + 1)));
    }
}
