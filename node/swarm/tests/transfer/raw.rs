//! A peer of the organisation that keeps to no rule but those of TLS: it says what a test makes it
//! say, frame by frame and byte by byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{ClientConfig, Connection, ConnectionError, RecvStream, SendStream, ServerConfig};
use sutler_protocol::frame::{
    self, Answer, Body, ChunksRequest, Holding, LENGTH_BYTES, Opened, Refusal, Request,
};
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::{ChunkRange, ContentId, HashList, HashListBuilder};
use sutler_swarm::identity::{Expect, Role, SERVER_NAME, client_config, server_config};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::machines::{Organisation, soon, v4};

/// A content and its hash list.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) hashes: HashList,
}

/// A peer that is asked.
pub(super) struct RawServer {
    pub(super) address: SocketAddr,
    /// Requests for chunks so far.
    pub(super) asked: watch::Receiver<u32>,
    /// Reports of mismatches so far.
    pub(super) reported: watch::Receiver<u32>,
    /// Why each of its connections ended.
    pub(super) closed: mpsc::UnboundedReceiver<ConnectionError>,
    _tasks: JoinSet<()>,
}

/// One request to it, and where the answer goes.
pub(super) struct Talk {
    pub(super) request: Request,
    pub(super) sample: Sample,
    pub(super) connection: Connection,
    pub(super) send: SendStream,
}

/// A peer that asks.
pub(super) struct RawClient {
    pub(super) connection: Connection,
    _endpoint: quinn::Endpoint,
}

impl Sample {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let mut builder = HashListBuilder::new();
        builder.update(&bytes);
        Self { hashes: builder.finish().unwrap(), bytes: Arc::new(bytes) }
    }

    pub(super) const fn id(&self) -> ContentId {
        self.hashes.id()
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns the bytes that a request is to be answered with.
    pub(super) fn asked_for(&self, asked: &ChunksRequest) -> Vec<u8> {
        let chunks = ChunkRange::new(ChunkIndex(asked.start), ChunkIndex(asked.end)).unwrap();
        let place = self.hashes.geometry().bytes(chunks);
        self.bytes[(place.start + asked.skip_bytes) as usize..place.end as usize].to_vec()
    }

    /// Returns what an honest peer says of the content.
    pub(super) fn opened(&self, body: Body) -> (Opened, Vec<u8>) {
        let list = match body {
            Body::Nothing => Vec::new(),
            Body::List if self.hashes.geometry().chunks() == 1 => self.bytes.to_vec(),
            Body::List => self.hashes.as_bytes().to_vec(),
        };
        let body_bytes = list.len() as u32;
        (Opened { len: self.len(), holding: Holding::Whole, body_bytes }, list)
    }
}

impl RawServer {
    /// Starts a peer that answers each request about the sample with `manner`.
    pub(super) fn start<F>(
        organisation: &Organisation,
        sample: &Sample,
        manner: impl Fn(Talk) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let identity = organisation.identity(Role::Agent);
        let tls = server_config(&identity, Expect::peers_of("acme".parse().unwrap())).unwrap();
        let config = ServerConfig::with_crypto(Arc::new(tls));
        let endpoint = quinn::Endpoint::server(config, v4()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (to_closed, closed) = mpsc::unbounded_channel();
        let (to_asked, asked) = watch::channel(0);
        let (to_reported, reported) = watch::channel(0);
        let sample = sample.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(incoming) = endpoint.accept().await {
                let (manner, sample) = (manner.clone(), sample.clone());
                let (to_closed, to_asked, to_reported) =
                    (to_closed.clone(), to_asked.clone(), to_reported.clone());
                connections.spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    let mut answers = JoinSet::new();
                    while let Ok((send, mut receive)) = connection.accept_bi().await {
                        let Some(request) = next::<Request>(&mut receive).await else { continue };
                        match request {
                            Request::Chunks(_) => to_asked.send_modify(|times| *times += 1),
                            Request::Mismatch(_) => to_reported.send_modify(|times| *times += 1),
                            _ => {}
                        }
                        let (sample, connection) = (sample.clone(), connection.clone());
                        answers.spawn(manner(Talk { request, sample, connection, send }));
                    }
                    let _ = to_closed.send(connection.closed().await);
                });
            }
        });
        Self { address, asked, reported, closed, _tasks: tasks }
    }

    /// Returns the code with which the other side ended the next connection that ended.
    pub(super) async fn close_code(&mut self) -> u64 {
        let closed = soon("a connection is closed", self.closed.recv()).await.unwrap();
        let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
        close.error_code.into_inner()
    }
}

impl Talk {
    /// Sends a frame; that the other side is gone is its business.
    pub(super) async fn say(&mut self, answer: &Answer) {
        let _ = self.send.write_all(&frame::encode(answer)).await;
    }

    pub(super) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    /// Announces chunks and sends these bytes for them, and finishes.
    pub(super) async fn chunks(mut self, announced: u64, bytes: &[u8]) {
        self.say(&Answer::Chunks { bytes: announced }).await;
        self.say_bytes(bytes).await;
    }

    pub(super) async fn open(mut self, opened: Opened, body: &[u8]) {
        self.say(&Answer::Opened(opened)).await;
        self.say_bytes(body).await;
    }

    /// Answers as an honest peer does.
    pub(super) async fn honest(mut self) {
        match self.request.clone() {
            Request::Open(open) => {
                let (opened, body) = self.sample.opened(open.body);
                self.open(opened, &body).await;
            }
            Request::Chunks(asked) => {
                let bytes = self.sample.asked_for(&asked);
                self.chunks(bytes.len() as u64, &bytes).await;
            }
            Request::Mismatch(_) => self.say(&Answer::Rechecked { good: true }).await,
            Request::Resolve(_) => {
                let (content, len) = (self.sample.id(), self.sample.len());
                self.say(&Answer::Resolved { content, len }).await;
            }
            Request::Hello { .. } => self.say(&Answer::Greeted { alone: true }).await,
            Request::Document(_) | Request::Watch | Request::Deny(_) | Request::Report { .. } => {
                self.say(&Answer::Refused(Refusal::Absent)).await;
            }
        }
    }

    /// Answers as an honest peer does, but for every bit of every chunk.
    pub(super) async fn lying(self) {
        match self.request.clone() {
            Request::Chunks(asked) => {
                let mut bytes = self.sample.asked_for(&asked);
                for byte in &mut bytes {
                    *byte = !*byte;
                }
                self.chunks(bytes.len() as u64, &bytes).await;
            }
            _ => self.honest().await,
        }
    }
}

impl RawClient {
    pub(super) async fn connect(organisation: &Organisation, to: SocketAddr) -> Self {
        Self::connect_with(organisation, to, quinn::TransportConfig::default()).await.unwrap()
    }

    pub(super) async fn connect_with(
        organisation: &Organisation,
        to: SocketAddr,
        transport: quinn::TransportConfig,
    ) -> Result<Self, ConnectionError> {
        let identity = organisation.identity(Role::Agent);
        let tls = client_config(&identity, Expect::peers_of("acme".parse().unwrap())).unwrap();
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client(v4()).unwrap();
        let connection = endpoint.connect_with(config, to, SERVER_NAME).unwrap().await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Opens a stream and sends these bytes on it, with an end or without.
    pub(super) async fn send(&self, bytes: &[u8], end: End) -> (SendStream, RecvStream) {
        let (mut send, receive) =
            soon("a stream may be opened", self.connection.open_bi()).await.unwrap();
        let _ = send.write_all(bytes).await;
        if end == End::Finished {
            let _ = send.finish();
        }
        (send, receive)
    }

    /// Asks, and returns the stream that the answer comes on.
    pub(super) async fn ask(&self, request: &Request) -> RecvStream {
        self.send(&frame::encode(request), End::Finished).await.1
    }

    /// Asks, and returns the answer's first frame and what follows it.
    pub(super) async fn answer(&self, request: &Request) -> Option<(Answer, RecvStream)> {
        let mut receive = self.ask(request).await;
        let answer = soon("an answer comes", next(&mut receive)).await?;
        Some((answer, receive))
    }

    /// Returns the code with which the other side ends the connection.
    pub(super) async fn close_code(&self) -> u64 {
        let closed = soon("the connection is closed", self.connection.closed()).await;
        let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
        close.error_code.into_inner()
    }
}

/// Whether a request is sent to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Open,
}

/// Returns the next frame of a stream; `None` if it ends first.
pub(super) async fn next<F: frame::Frame>(from: &mut RecvStream) -> Option<F> {
    let mut field = [0; LENGTH_BYTES];
    from.read_exact(&mut field).await.ok()?;
    let mut bytes = vec![0; frame::length(field).ok()?];
    from.read_exact(&mut bytes).await.ok()?;
    frame::decode(&bytes).ok()
}
