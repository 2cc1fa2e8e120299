//! Points for the first review of each product, where a shop gives some.

use super::{Loyalty, ledger::Entry};
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{EntryKind, ProductId, UserId};

impl Loyalty {
    pub(super) fn review(&self, user: &UserId, product: &ProductId, cx: &mut Context<'_>) -> Result<()> {
        let points = self.rules.earning.review_points;
        let key = (user.clone(), product.clone());
        if points == 0 || cx.get(&self.tables.reviewed, &key)?.is_some() {
            return Ok(());
        }
        cx.put(&self.tables.reviewed, &key, &())?;
        let mut book = self.open(user, cx)?;
        self.gain(&mut book, Entry::gain(format!("review:{product}"), EntryKind::Bonus, points, format!("Review of {product}")), cx)?;
        self.close(book, cx)
    }
}
