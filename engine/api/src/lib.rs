//! All that a processor sees: what it declares, what it is given, what it can do. No log, no clock, no I/O.
//!
//! A processor is pure: (state, event, time) → (state changes, outputs, timers).
//!
//! ```
//! use tillflow_engine_api::{Context, Declare, Processor, Result, testing::Driver};
//! use tillflow_schemas::{Event, ProductId, UserEvent, UserEventKind};
//! use tillflow_state::Table;
//!
//! /// Counts the views of each product.
//! struct Views { counts: Table<ProductId, u64> }
//!
//! impl Processor for Views {
//!     fn declare(d: &mut Declare) -> Self {
//!         d.input::<UserEvent>();
//!         Self { counts: d.store("views.counts") }
//!     }
//!     fn process(&mut self, event: &Event, cx: &mut Context) -> Result<()> {
//!         let Event::User(UserEvent { kind: UserEventKind::ProductViewed { product_id, .. }, .. }) = event else { return Ok(()) };
//!         let count = cx.get(&self.counts, product_id)?.unwrap_or(0);
//!         cx.put(&self.counts, product_id, &(count + 1))
//!     }
//! }
//!
//! let mut shop = Driver::of::<Views>();
//! shop.send_json("user_event", serde_json::json!({
//!     "event_type": "product_viewed", "user_id": "u1", "product_id": "p1", "timestamp": "2026-03-01T10:00:00Z"}));
//! assert!(shop.failures.is_empty());
//! ```

mod context;
mod declare;
mod error;
mod globals;
pub mod keys;
mod outbox;
mod task;
pub mod testing;
mod topology;
mod traces;
mod upcoming;

pub use context::{Context, Place, Query, Timer};
pub use declare::{CheckFn, Combined, Declare, Declared, Global, Output, QueryFn, TimerKind};
pub use error::{Error, Result};
pub use globals::Globals;
pub use outbox::{Combine, Emission, LARGEST_VALUE, Outbox};
pub use task::{Done, FailedTimer, Failure, Task};
pub use topology::{Group, Part};

/// A stream processor: one folder of `processors/`.
pub trait Processor: Send {
    /// Declares inputs, tables, outputs, timers and queries, all in one place, and keeps the handles.
    fn declare(d: &mut Declare<'_>) -> Self
    where
        Self: Sized;

    /// Processes one record. An error undoes the record for all processors and sends it to the dead letters.
    ///
    /// # Errors
    /// [`Error::Reject`] when the record asks for what can't be done.
    fn process(&mut self, event: &tillflow_schemas::Event, cx: &mut Context<'_>) -> Result<()>;

    /// A timer this processor set has become due; `cx.now()` is when it was due.
    ///
    /// # Errors
    /// As [`Processor::process`]; the timer is dropped.
    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let _ = (timer, cx);
        Ok(())
    }
}
