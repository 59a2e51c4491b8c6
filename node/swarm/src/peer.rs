//! The asking side of a connection: one method per request of the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{ReadExactError, RecvStream};
use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{
    Answer, Body, ChunksRequest, Class, Frame, Mismatch, Open, Opened, Refusal, Request, Resolve,
};
use sutler_protocol::hash_list::HASH_LIST_BYTES_MAX;
use sutler_protocol::{ChunkIndex, ContentId, Sha256Digest};
use tokio::time::timeout;
use url::Url;

use crate::ended::Ended;
use crate::gateway::Filled;
use crate::identity::{HandshakeRefusal, Instance, PeerName, PeerNameError};
use crate::knock;
use crate::live::Entered;
use crate::transport::MTU_MAX;
use crate::wire::{self, ReceiveError};

mod orders;

pub use orders::Watch;

/// How long a peer may take to answer a request that it can answer at once, or to say that it is
/// still filling (it does so every 5 s).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the other machine may take to acknowledge a request, whatever it is busy with.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(2_400);

/// How many more times than once a second a peer may say how far its fill has come. Every 5 s is
/// agreed on.
const FILLING_AHEAD_MAX: u64 = 16;

/// How soon, and after how long at the latest, a peer that said it is busy is asked again.
const BUSY_MIN: Duration = Duration::from_millis(10);
const BUSY_MAX: Duration = Duration::from_secs(10);

/// A connected peer whose name was checked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    connection: quinn::Connection,
    name: PeerName,
    address: SocketAddr,
    entered: Arc<Entered>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be connected to at all.
    #[error("connect to {address}")]
    Start {
        /// Whom.
        address: SocketAddr,
        /// What quinn said.
        source: quinn::ConnectError,
    },
    /// Nothing came back.
    #[error("no answer from {address}: nothing listens there, or UDP port {} is blocked", .address.port())]
    Silent {
        /// Whom.
        address: SocketAddr,
    },
    /// The machine is there and refuses what is sent to the port.
    #[error("nothing listens on UDP port {} of {}: start the node there", .address.port(), .address.ip())]
    Nobody {
        /// Whom.
        address: SocketAddr,
    },
    /// One side did not accept the other's certificate.
    #[error("prove each other's name with {address}")]
    Identity {
        /// Whom.
        address: SocketAddr,
        /// Who turned whom down.
        source: HandshakeRefusal,
    },
    /// The connection failed otherwise.
    #[error("connect to {address}")]
    Failed {
        /// Whom.
        address: SocketAddr,
        /// How.
        source: Ended,
    },
    /// The certificate was accepted, and yet has no name.
    #[error("read the name of {address}")]
    Name {
        /// Whom.
        address: SocketAddr,
        /// What its certificate lacks.
        source: PeerNameError,
    },
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The peer answered that it cannot.
    #[error(transparent)]
    Refused(Refusal),
    /// The connection is gone.
    #[error("the connection ended")]
    Connection(#[source] Ended),
    /// The stream ended before the answer was whole.
    #[error("the answer broke off")]
    Broken(#[source] std::io::Error),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(&'static str),
    /// The peer sent something that is no frame.
    #[error("the peer broke the protocol")]
    Garbage(#[source] ReceiveError),
    /// The peer took longer than an answer may take.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// What was to be sent is longer than anybody would take.
    #[error("it has more than the {bytes_max} bytes that a peer takes")]
    TooLong {
        /// The most that it may have.
        bytes_max: u64,
    },
}

/// The raw bytes that answer a [`ChunksRequest`].
#[derive(Debug)]
pub struct ChunkStream {
    connection: quinn::Connection,
    stream: RecvStream,
    left_bytes: u64,
    /// A revoked peer's stream ends too when nothing else of its connection is left.
    _entered: Arc<Entered>,
    /// The most that comes in one piece: a datagram, or some that the transport has joined.
    piece_bytes_max: usize,
}

impl Peer {
    pub(crate) fn new(
        connection: quinn::Connection,
        name: PeerName,
        address: SocketAddr,
        entered: Entered,
    ) -> Self {
        Self { connection, name, address, entered: Arc::new(entered) }
    }

    /// Returns who the peer proved to be.
    pub const fn name(&self) -> &PeerName {
        &self.name
    }

    /// Returns the address that was connected to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the least round trip seen on this connection.
    pub fn rtt(&self) -> Duration {
        self.connection.min_rtt()
    }

    /// Returns why the connection ended, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.connection.close_reason().map(Ended::from)
    }

    /// Ends the connection.
    pub fn close(&self, why: CloseCode) {
        self.connection.close(wire::code(why), b"");
    }

    /// Asks what the peer has of a content; with [`Body::List`] also for its hash list, or for the
    /// content itself where it has one chunk. Neither was verified.
    ///
    /// Cancel-safe: the request is given up.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn open(
        &self,
        content: ContentId,
        body: Body,
        class: Class,
    ) -> Result<(Opened, Vec<u8>), RequestError> {
        let asked = async {
            let (answer, mut stream) =
                self.ask(&Request::Open(Open { content, body, class })).await?;
            let Answer::Opened(opened) = answer else { return Err(self.unexpected(answer)) };
            let body_bytes = opened.body_bytes as usize;
            if body_bytes > HASH_LIST_BYTES_MAX {
                return Err(self.violation("a hash list beyond its bound"));
            }
            let mut list = vec![0; body_bytes];
            stream.read_exact(&mut list).await.map_err(|error| self.broken(early(error)))?;
            Ok((opened, list))
        };
        timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| RequestError::Timeout)?
    }

    /// Asks for a run of chunks. The bytes that follow were not verified.
    ///
    /// Cancel-safe: the request is given up. Waits for as long as the peer waits for chunks that
    /// are promised to it; the caller bounds that.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn chunks(
        &self,
        request: ChunksRequest,
        expected_bytes: u64,
    ) -> Result<ChunkStream, RequestError> {
        let (answer, stream) = self.ask(&Request::Chunks(request)).await?;
        match answer {
            Answer::Chunks { bytes } if bytes == expected_bytes => {
                let connection = self.connection.clone();
                Ok(ChunkStream {
                    connection,
                    stream,
                    left_bytes: bytes,
                    _entered: Arc::clone(&self.entered),
                    piece_bytes_max: MTU_MAX.into(),
                })
            }
            Answer::Chunks { .. } => {
                Err(self.violation("another number of bytes than was asked for"))
            }
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks for the content behind a vendor's digest, and reports to `filled` how far the peer has
    /// come with it. The answer is the peer's claim.
    ///
    /// Cancel-safe: the request is given up; the peer goes on filling.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn resolve(
        &self,
        sha256: Sha256Digest,
        url: &Url,
        class: Class,
        mut filled: impl FnMut(Filled),
    ) -> Result<(ContentId, u64), RequestError> {
        let request = Request::Resolve(Resolve { sha256, url: url.to_string(), class });
        let (mut answer, mut stream) = timeout(ANSWER_TIMEOUT, self.ask(&request))
            .await
            .map_err(|_| RequestError::Timeout)??;
        let started = Instant::now();
        let mut said = 0;
        loop {
            match answer {
                Answer::Filling { have, len } => {
                    said += 1;
                    if said > FILLING_AHEAD_MAX + started.elapsed().as_secs() {
                        return Err(self.violation("it says how far it is without end"));
                    }
                    filled(Filled { have, len });
                }
                Answer::Resolved { content, len } => return Ok((content, len)),
                other => return Err(self.unexpected(other)),
            }
            answer = timeout(ANSWER_TIMEOUT, self.receive(&mut stream))
                .await
                .map_err(|_| RequestError::Timeout)??;
        }
    }

    /// Says which machine this is, and returns whether no other was heard under its name in between.
    ///
    /// Cancel-safe: it may or may not have arrived.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn hello(&self, instance: Instance) -> Result<bool, RequestError> {
        let asked = async {
            match self.ask(&Request::Hello { instance }).await?.0 {
                Answer::Greeted { alone } => Ok(alone),
                other => Err(self.unexpected(other)),
            }
        };
        timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| RequestError::Timeout)?
    }

    /// Reports a chunk that came from the peer and did not verify; returns whether it verifies
    /// there, as the peer says.
    ///
    /// Cancel-safe: the report may or may not have arrived.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn mismatch(
        &self,
        content: ContentId,
        chunk: ChunkIndex,
    ) -> Result<bool, RequestError> {
        let request = Request::Mismatch(Mismatch { content, chunk: chunk.0 });
        let asked = async {
            match self.ask(&request).await?.0 {
                Answer::Rechecked { good } => Ok(good),
                other => Err(self.unexpected(other)),
            }
        };
        timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| RequestError::Timeout)?
    }

    async fn ask(&self, request: &Request) -> Result<(Answer, RecvStream), RequestError> {
        self.ask_with(request, &[]).await
    }

    /// Asks with raw bytes behind the request.
    async fn ask_with(
        &self,
        request: &Request,
        behind: &[u8],
    ) -> Result<(Answer, RecvStream), RequestError> {
        let (mut send, mut receive) = self
            .connection
            .open_bi()
            .await
            .map_err(|error| RequestError::Connection(error.into()))?;
        let heard = self.connection.stats().udp_rx.datagrams;
        wire::send(&mut send, request).await.map_err(|error| self.broken(error.into()))?;
        send.write_all(behind).await.map_err(|error| self.broken(error.into()))?;
        send.finish().map_err(|error| self.broken(error.into()))?;
        tokio::select! {
            // Which of the two is dropped does not matter: the request ends with either.
            answer = self.receive(&mut receive) => Ok((answer?, receive)),
            ended = self.stays_silent(heard) => {
                self.close(CloseCode::Done);
                Err(RequestError::Connection(ended))
            }
        }
    }

    /// Waits until a request would have been acknowledged by any living machine, or until nobody
    /// listens at its address any more, and returns which if nothing has come since `heard` datagrams
    /// had.
    ///
    /// Whether a kept connection still leads to anybody shows only when it is used: the word that
    /// ended it may have been lost, and to wait for the idle time-out would take half a minute.
    async fn stays_silent(&self, heard: u64) -> Ended {
        let until = tokio::time::Instant::now() + ACKNOWLEDGED_WITHIN;
        tokio::time::sleep(knock::WORTH_AFTER).await;
        if self.connection.stats().udp_rx.datagrams == heard {
            let ended = tokio::select! {
                // Both only wait.
                () = knock::refused(self.address, Duration::ZERO) => Ended::Nobody,
                () = tokio::time::sleep_until(until) => Ended::Silence,
            };
            if self.connection.stats().udp_rx.datagrams == heard {
                return ended;
            }
        }
        std::future::pending().await
    }

    async fn receive<F: Frame>(&self, stream: &mut RecvStream) -> Result<F, RequestError> {
        wire::receive(stream).await.map_err(|error| match error {
            ReceiveError::Frame(_) => {
                self.close(CloseCode::BadFrame);
                RequestError::Garbage(error)
            }
            ReceiveError::Stream(cause) => self.broken(early(cause)),
        })
    }

    fn unexpected(&self, answer: Answer) -> RequestError {
        match answer {
            Answer::Refused(refusal) => RequestError::Refused(refusal),
            _ => self.violation("an answer to another request"),
        }
    }

    /// Ends the connection to a peer that does not keep to the protocol: nothing else that it says
    /// on it would be worth hearing.
    fn violation(&self, what: &'static str) -> RequestError {
        self.close(CloseCode::BadFrame);
        RequestError::Violation(what)
    }

    /// Tells a broken stream from a broken connection: the latter ends all of its requests.
    fn broken(&self, error: std::io::Error) -> RequestError {
        match self.ended() {
            Some(ended) => RequestError::Connection(ended),
            None => RequestError::Broken(error),
        }
    }
}

impl ChunkStream {
    /// Receives the next bytes into `into`, whose buffers are replaced, and returns how many were;
    /// 0 once all that was promised has come.
    ///
    /// Leaves to the transport what goes beyond `wanted` bytes. Only the first pieces that it has
    /// joined into larger ones may bring more.
    ///
    /// Cancel-safe: bytes leave the stream only when they are returned.
    ///
    /// # Errors
    ///
    /// [`RequestError::Broken`] if the stream ends early, [`RequestError::Connection`] if all of them
    /// do, [`RequestError::Violation`] if it does not end in time.
    pub async fn next(&mut self, into: &mut [Bytes], wanted: usize) -> Result<usize, RequestError> {
        let pieces = (wanted / self.piece_bytes_max).min(into.len());
        let read = if pieces > 1 {
            self.stream.read_chunks(&mut into[..pieces]).await
        } else {
            let read = self.stream.read_chunk(wanted, true).await;
            read.map(|piece| piece.map(|piece| into[0] = piece.bytes).map(|()| 1))
        };
        let count = match read.map_err(|error| self.broken(error))? {
            Some(count) => count,
            None if self.left_bytes == 0 => return Ok(0),
            None => return Err(RequestError::Broken(std::io::ErrorKind::UnexpectedEof.into())),
        };
        let came = into[..count].iter().map(Bytes::len);
        self.piece_bytes_max = came.fold(self.piece_bytes_max, usize::max);
        let bytes: u64 = into[..count].iter().map(|piece| piece.len() as u64).sum();
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or_else(|| {
            // Stopping tells the sender; that it is gone already is no further trouble.
            let _ = self.stream.stop(wire::code(CloseCode::TooMuch));
            self.connection.close(wire::code(CloseCode::TooMuch), b"");
            RequestError::Violation("more bytes than were asked for")
        })?;
        Ok(count)
    }

    fn broken(&self, error: quinn::ReadError) -> RequestError {
        match self.connection.close_reason() {
            Some(reason) => RequestError::Connection(reason.into()),
            None => RequestError::Broken(error.into()),
        }
    }
}

impl ConnectError {
    pub(crate) fn of(address: SocketAddr, error: quinn::ConnectionError) -> Self {
        match Ended::from(error) {
            Ended::Identity(source) => Self::Identity { address, source },
            Ended::Silence => Self::Silent { address },
            source => Self::Failed { address, source },
        }
    }
}

impl RequestError {
    /// Returns whether one side did not accept the other's certificate. A server judges a
    /// certificate when its client has the connection already, so this is how the client hears.
    pub const fn is_identity(&self) -> bool {
        matches!(self, Self::Connection(Ended::Identity(_)))
    }

    /// Returns how long a peer that is only busy wants to be left alone, within bounds.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        match self {
            Self::Refused(Refusal::Busy { retry_ms }) => {
                Some(Duration::from_millis((*retry_ms).into()).clamp(BUSY_MIN, BUSY_MAX))
            }
            _ => None,
        }
    }
}

fn early(error: ReadExactError) -> std::io::Error {
    match error {
        ReadExactError::FinishedEarly(_) => std::io::ErrorKind::UnexpectedEof.into(),
        ReadExactError::ReadError(error) => error.into(),
    }
}
