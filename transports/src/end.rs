//! Why a link ended, told once to everyone who waits on it.

use tokio::sync::watch;

use crate::transport::LinkError;

/// Empty while the link lives. The first cause stays.
#[derive(Debug)]
pub(crate) struct LinkEnd(watch::Sender<Option<LinkError>>);

impl LinkEnd {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Records `cause` unless there is one; gives the cause that holds.
    pub(crate) fn set(&self, cause: LinkError) -> LinkError {
        let mut held = cause;
        self.0.send_if_modified(|end| match end {
            Some(earlier) => {
                held = *earlier;
                false
            }
            None => {
                *end = Some(cause);
                true
            }
        });
        held
    }

    pub(crate) fn get(&self) -> Option<LinkError> {
        *self.0.borrow()
    }

    /// Waits for the end. Cancel safe.
    pub(crate) async fn wait(&self) -> LinkError {
        let mut end = self.0.subscribe();
        let cause = *end.wait_for(Option::is_some).await.expect("the sender is borrowed by this call");
        cause.expect("wait_for returned a value that is some")
    }
}
