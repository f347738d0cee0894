//! The time between two requests of a connection. It ends after the idle timeout, soon if memory is critical, and when the server closes.

use std::task::{Context, Poll};

use tokio::time::{Duration, Instant};

use super::context::ConnectionContext;
use super::state::Phase;
use crate::clock::ReusableSleep;
use crate::hub::Waiter;

/// While memory is critical, idle connections close within this time, spread evenly.
pub(super) const SHEDDING_TIME: Duration = Duration::from_secs(10);

/// Limits the time between two requests. Dropping it removes the connection from the idle ones.
pub(super) struct KeepAlive<'a> {
    context: &'a ConnectionContext,
    /// Timer of the connection, which a pending response also uses.
    pub(super) timer: ReusableSleep,
    until: Option<Instant>,
    has_shed: bool,
    waiter: Waiter,
}

impl<'a> KeepAlive<'a> {
    pub(super) fn new(context: &'a ConnectionContext) -> Self {
        let (timer, until, has_shed, waiter) = Default::default();
        Self { context, timer, until, has_shed, waiter }
    }

    /// Ends the time: a request has arrived. The connection stays among the idle ones, as it is likely to be idle again.
    pub(super) fn end(&mut self) {
        (self.until, self.has_shed) = (None, false);
    }

    /// Completes when the connection has to close, as it has been without a request for too long.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let context = self.context;
        let until = self.until.get_or_insert_with(|| Instant::now() + context.limits.idle_timeout.get());
        // Registered before the phase is looked at, so that no change goes unnoticed. Without one, an idle connection takes no shared lock.
        if !self.waiter.is_registered() || context.may_close() {
            let _pending = context.idle.0.poll_until(&mut self.waiter, cx, |()| None::<()>);
        }
        if context.may_close() {
            let phase = context.current_phase();
            if phase >= Phase::Closing {
                return Poll::Ready(());
            }
            if phase == Phase::Shedding && !std::mem::replace(&mut self.has_shed, true) {
                *until = (*until).min(Instant::now() + SHEDDING_TIME.mul_f64(fastrand::f64()));
            }
        }
        self.timer.poll(cx, *until)
    }
}

impl Drop for KeepAlive<'_> {
    fn drop(&mut self) {
        self.context.idle.0.forget(&mut self.waiter);
    }
}
