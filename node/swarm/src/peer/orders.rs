//! What is asked of a peer about orders. Nothing of the answers is believed here.

use bytes::Bytes;
use quinn::RecvStream;
use sutler_protocol::frame::{
    Answer, DENIAL_BYTES_MAX, DOCUMENT_BYTES_MAX, DocumentRequest, News, REPORT_BYTES_MAX, Refusal,
    Request,
};
use sutler_protocol::manifest::bounds::TIMESTAMP_BYTES_MAX;
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, Peer, RequestError, early};
use crate::orders::Place;

/// A watch that a peer keeps for us.
#[derive(Debug)]
pub struct Watch {
    peer: Peer,
    stream: RecvStream,
    /// What came with the answer, until it is asked for.
    first: Option<News>,
}

impl Peer {
    /// Asks for a document by its place, of which at most `bytes_max` bytes come; `None` if the peer has
    /// none.
    ///
    /// Cancel-safe: the request is given up.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn document(
        &self,
        place: &Place,
        bytes_max: u32,
    ) -> Result<Option<Bytes>, RequestError> {
        let bytes_max = bytes_max.min(DOCUMENT_BYTES_MAX);
        let request = DocumentRequest { place: place.as_str().to_owned(), bytes_max };
        let asked = async {
            let (answer, mut stream) = self.ask(&Request::Document(request)).await?;
            match answer {
                Answer::Document { bytes } if bytes <= bytes_max => {
                    let mut document = vec![0; bytes as usize];
                    let read = stream.read_exact(&mut document).await;
                    read.map_err(|error| self.broken(early(error)))?;
                    Ok(Some(document.into()))
                }
                Answer::Document { .. } => {
                    Err(self.violation("more of a document than was asked for"))
                }
                Answer::Refused(Refusal::Absent) => Ok(None),
                other => Err(self.unexpected(other)),
            }
        };
        timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| RequestError::Timeout)?
    }

    /// Asks to be told of new orders. A peer that knows of none yet keeps silent until it does.
    ///
    /// Cancel-safe: the watch is given up.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn watch(&self) -> Result<Watch, RequestError> {
        let (answer, stream) = self.ask(&Request::Watch).await?;
        let first = match answer {
            Answer::News(news) => Some(self.bounded(news)?),
            other => return Err(self.unexpected(other)),
        };
        Ok(Watch { peer: self.clone(), stream, first })
    }

    /// Passes a denial on; when this returns, the peer has it durably.
    ///
    /// Cancel-safe: it may or may not have arrived, and to pass it on again does no harm.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; [`RequestError::TooLong`] of what is no denial.
    pub async fn deny(&self, denial: &Bytes) -> Result<(), RequestError> {
        if denial.len() > DENIAL_BYTES_MAX {
            return Err(RequestError::TooLong { bytes_max: DENIAL_BYTES_MAX as u64 });
        }
        let asked = async { self.took(self.ask(&Request::Deny(denial.to_vec())).await?.0) };
        timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| RequestError::Timeout)?
    }

    /// Hands a report over; when this returns, the peer has it durably.
    ///
    /// Cancel-safe: it may or may not have arrived, and to hand it over again does no harm.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; [`RequestError::TooLong`] of what is no report.
    pub async fn report(&self, report: &Bytes) -> Result<(), RequestError> {
        if report.len() > REPORT_BYTES_MAX as usize {
            return Err(RequestError::TooLong { bytes_max: REPORT_BYTES_MAX.into() });
        }
        let request = Request::Report { bytes: report.len() as u32 };
        let asked = async { self.took(self.ask_with(&request, report).await?.0) };
        timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| RequestError::Timeout)?
    }

    fn took(&self, answer: Answer) -> Result<(), RequestError> {
        match answer {
            Answer::Taken => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    fn bounded(&self, news: News) -> Result<News, RequestError> {
        let fits = match &news {
            News::Timestamp(bytes) => bytes.len() as u64 <= TIMESTAMP_BYTES_MAX,
            News::Denial(bytes) => bytes.len() <= DENIAL_BYTES_MAX,
        };
        if fits { Ok(news) } else { Err(self.violation("news beyond its bound")) }
    }
}

impl Watch {
    /// Waits for the next thing that is new.
    ///
    /// Not cancel-safe: a frame may be cut. Keep the future, or give the watch up.
    ///
    /// # Errors
    ///
    /// [`RequestError`], also where the peer ends the watch because it shuts down.
    pub async fn next(&mut self) -> Result<News, RequestError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match self.peer.receive(&mut self.stream).await? {
            Answer::News(news) => self.peer.bounded(news),
            other => Err(self.peer.unexpected(other)),
        }
    }

    /// Returns the peer that is watched.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }
}
