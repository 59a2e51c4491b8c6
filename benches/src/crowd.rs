//! Many clients in one process, each with a socket and a connection of its own: they fetch the same
//! content, verify every chunk, and discard it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use bytes::Bytes;
use sutler_protocol::frame::{Body, ChunksRequest, Class};
use sutler_protocol::geometry::PieceIndex;
use sutler_protocol::{ContentId, HashList};
use sutler_swarm::identity::Identity;
use sutler_swarm::peer::Peer;
use sutler_swarm::{Endpoint, TransportConfig};
use tokio::task::JoinSet;

/// Requests that each client has in flight, a piece each: as few as a fetch has.
const REQUESTS: u32 = 4;

/// Pieces taken from the transport at a time.
const PIECES: usize = 32;

/// Has `clients` clients fetch a content at the same time.
pub(crate) async fn fetch(
    identity: &Identity,
    transport: &TransportConfig,
    from: SocketAddr,
    content: ContentId,
    clients: usize,
) -> anyhow::Result<()> {
    let mut fetching = JoinSet::new();
    for _ in 0..clients {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::bind(any, identity, transport.clone())?;
        fetching.spawn(async move {
            let peer = endpoint.connect(from).await?;
            fetch_one(peer, content).await?;
            endpoint.close().await;
            anyhow::Ok(())
        });
    }
    while let Some(fetched) = fetching.join_next().await {
        fetched??;
    }
    Ok(())
}

async fn fetch_one(peer: Peer, content: ContentId) -> anyhow::Result<()> {
    let (opened, list) = peer.open(content, Body::List, Class::Normal).await?;
    let hashes = Arc::new(HashList::verify(&list, content, opened.len)?);
    let next = Arc::new(AtomicU32::new(0));
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        requests.spawn(fetch_pieces(peer.clone(), hashes.clone(), next.clone()));
    }
    while let Some(done) = requests.join_next().await {
        done??;
    }
    Ok(())
}

/// Takes the next piece that nobody has asked for, until there is none.
async fn fetch_pieces(
    peer: Peer,
    hashes: Arc<HashList>,
    next: Arc<AtomicU32>,
) -> anyhow::Result<()> {
    let geometry = hashes.geometry();
    let mut chunk = Vec::with_capacity(geometry.chunk_bytes() as usize);
    let mut pieces = [const { Bytes::new() }; PIECES];
    while let Some(piece) = geometry.piece(PieceIndex(next.fetch_add(1, Ordering::Relaxed))) {
        let request = ChunksRequest {
            content: hashes.id(),
            len: geometry.len(),
            start: piece.start().0,
            end: piece.end().0,
            skip_bytes: 0,
            class: Class::Normal,
            deadline_ms: 0,
        };
        let place = geometry.bytes(piece);
        let mut stream = peer.chunks(request, place.end - place.start).await?;
        let mut wanted = piece.iter();
        loop {
            let count = stream.next(&mut pieces, usize::MAX).await?;
            if count == 0 {
                break;
            }
            for bytes in &mut pieces[..count] {
                let mut bytes = std::mem::take(bytes);
                while !bytes.is_empty() {
                    let lacking = geometry.chunk_bytes() as usize - chunk.len();
                    let now = bytes.split_to(lacking.min(bytes.len()));
                    chunk.extend_from_slice(&now);
                    if chunk.len() == geometry.chunk_bytes() as usize {
                        verify(&hashes, wanted.next(), &mut chunk)?;
                    }
                }
            }
        }
        if !chunk.is_empty() {
            verify(&hashes, wanted.next(), &mut chunk)?;
        }
    }
    Ok(())
}

fn verify(
    hashes: &HashList,
    index: Option<sutler_protocol::ChunkIndex>,
    chunk: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let index = index.ok_or_else(|| anyhow::anyhow!("more came than was asked for"))?;
    ensure!(hashes.vouches_for(index, chunk), "chunk {} does not verify", index.0);
    chunk.clear();
    Ok(())
}
