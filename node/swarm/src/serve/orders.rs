//! Answers about orders: documents, watches, denials, reports.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use sutler_protocol::frame::{Answer, DocumentRequest, News, REPORT_BYTES_MAX, Refusal};
use tokio::sync::watch;
use tokio::time::timeout;

use super::request::{AnswerError, Answering, REQUEST_TIMEOUT};
use crate::gateway::{Gateway, store_failed};
use crate::orders::{Latest, NotTaken, Orders, Place};

impl<G: Gateway> Answering<G> {
    pub(super) async fn document(
        &self,
        send: &mut SendStream,
        asked: DocumentRequest,
    ) -> Result<(), AnswerError> {
        let Some(place) = Place::parse(&asked.place) else {
            return self.refuse(send, Refusal::Absent).await;
        };
        // A document may have 4 MiB, so a reader that never reads must not be owed many.
        let _sending = self.sending.acquire().await;
        let found = self.ask(move |orders| orders.document(&place)).await;
        let document = match found {
            Ok(Some(Ok(Some(document)))) => document,
            Ok(Some(Ok(None)) | None) => return self.refuse(send, Refusal::Absent).await,
            Ok(Some(Err(error))) => return self.refuse(send, store_failed(&error)).await,
            Err(refusal) => return self.refuse(send, refusal).await,
        };
        let bytes = document.len().min(asked.bytes_max as usize);
        self.shared.counters.served_bytes.add(bytes as u64);
        self.answer(send, &Answer::Document { bytes: bytes as u32 }).await?;
        self.write(send, document.slice(..bytes)).await
    }

    /// Tells of orders until the peer has enough, or this side shuts down.
    pub(super) async fn watch(&self, send: &mut SendStream) -> Result<(), AnswerError> {
        let Some(orders) = &self.shared.orders else {
            return self.refuse(send, Refusal::Absent).await;
        };
        if self.is_watching.swap(true, Ordering::Relaxed) {
            return self.refuse(send, Refusal::OutOfBounds).await;
        }
        let watched = self.tell(send, orders.news()).await;
        self.is_watching.store(false, Ordering::Relaxed);
        watched
    }

    async fn tell(
        &self,
        send: &mut SendStream,
        mut news: watch::Receiver<Arc<Latest>>,
    ) -> Result<(), AnswerError> {
        let mut told = Arc::<Latest>::default();
        loop {
            let latest = news.borrow_and_update().clone();
            for new in new_in(&latest, &told) {
                self.answer(send, &Answer::News(new)).await?;
            }
            told = latest;
            tokio::select! {
                // Cancel-safe, all three: they only wait.
                changed = news.changed() => if changed.is_err() { return Ok(()) },
                _ = send.stopped() => return Ok(()),
                () = self.shared.draining.cancelled() => return Ok(()),
            }
        }
    }

    pub(super) async fn deny(
        &self,
        send: &mut SendStream,
        denial: Vec<u8>,
    ) -> Result<(), AnswerError> {
        let from = self.name.clone();
        let taken = self.ask(move |orders| orders.take_denial(&from, denial.into())).await;
        self.taken(send, taken).await
    }

    pub(super) async fn report(
        &self,
        send: &mut SendStream,
        receive: &mut RecvStream,
        bytes: u32,
    ) -> Result<(), AnswerError> {
        if bytes > REPORT_BYTES_MAX || self.shared.orders.is_none() {
            return self.refuse(send, Refusal::OutOfBounds).await;
        }
        // What is read is held, so that only a few are at a time.
        let _sending = self.sending.acquire().await;
        let mut report = vec![0; bytes as usize];
        match timeout(REQUEST_TIMEOUT, receive.read_exact(&mut report)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return self.refuse(send, Refusal::OutOfBounds).await,
        }
        let from = self.name.clone();
        let taken = self.ask(move |orders| orders.take_report(&from, Bytes::from(report))).await;
        self.taken(send, taken).await
    }

    async fn taken(
        &self,
        send: &mut SendStream,
        taken: Result<Option<Result<(), NotTaken>>, Refusal>,
    ) -> Result<(), AnswerError> {
        match taken {
            Ok(Some(Ok(()))) => self.answer(send, &Answer::Taken).await,
            Ok(Some(Err(error))) => self.refuse(send, error.into()).await,
            Ok(None) => self.refuse(send, Refusal::Absent).await,
            Err(refusal) => self.refuse(send, refusal).await,
        }
    }

    /// Asks the orders where waiting is allowed; `None` if this server has none.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Orders) -> T + Send + 'static,
    ) -> Result<Option<T>, Refusal> {
        let Some(orders) = self.shared.orders.clone() else { return Ok(None) };
        let asked = tokio::task::spawn_blocking(move || question(orders.as_ref())).await;
        asked.map(Some).map_err(|error| store_failed(&error))
    }
}

/// Returns what is to be told to who was told `told`.
fn new_in(latest: &Latest, told: &Latest) -> Vec<News> {
    let timestamp =
        (latest.timestamp != told.timestamp).then(|| latest.timestamp.clone()).flatten();
    let timestamp = timestamp.map(|bytes| News::Timestamp(bytes.to_vec()));
    let denials = latest.denials.iter().filter(|denial| !told.denials.contains(denial));
    // Denials first: what they stop must not begin because of the timestamp.
    denials.map(|bytes| News::Denial(bytes.to_vec())).chain(timestamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_is_told_what_is_new_and_denials_first() {
        let latest = |timestamp: Option<&'static str>, denials: &[&'static str]| Latest {
            timestamp: timestamp.map(Bytes::from),
            denials: denials.iter().map(|denial| Bytes::from(*denial)).collect(),
        };
        let (nothing, first) = (Latest::default(), latest(Some("1"), &["a"]));
        assert!(new_in(&nothing, &nothing).is_empty());
        let told = [News::Denial(b"a".to_vec()), News::Timestamp(b"1".to_vec())];
        assert_eq!(new_in(&first, &nothing), told);
        assert!(new_in(&first, &first).is_empty());
        let second = latest(Some("1"), &["b"]);
        assert_eq!(new_in(&second, &first), [News::Denial(b"b".to_vec())]);
    }
}
