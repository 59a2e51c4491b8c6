//! Bare quinn: the ceiling. One stream a client, from memory to a reader that discards, with the
//! transport settings, buffers and certificates of the real program.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use quinn::{TokioRuntime, VarInt};
use sutler_swarm::TransportConfig;
use sutler_swarm::identity::{Expect, Identity, SERVER_NAME, client_config, server_config};
use tokio::task::JoinSet;

/// Bytes handed to quinn at a time, all of them the same memory.
const WRITE_BYTES: usize = 1 << 20;

/// Pieces taken from quinn at a time.
const PIECES: usize = 32;

/// Serves until the process is ended: each stream asks for a number of bytes and gets them.
pub(crate) async fn serve(
    identity: &Identity,
    transport: &TransportConfig,
    clients: usize,
) -> anyhow::Result<()> {
    let endpoint = endpoint(identity, transport)?;
    println!("listening {}", endpoint.local_addr()?);
    let windows = transport.windows(clients);
    let mut open = JoinSet::new(); // Owns every connection.
    while let Some(incoming) = endpoint.accept().await {
        open.spawn(async move {
            let connection = incoming.await?;
            connection.set_send_window(windows.send_bytes);
            while let Ok((send, receive)) = connection.accept_bi().await {
                answer(send, receive).await?;
            }
            anyhow::Ok(())
        });
        while open.try_join_next().is_some() {}
    }
    Ok(())
}

/// Has `clients` clients, each with a socket of its own, receive `bytes` bytes at the same time.
pub(crate) async fn receive(
    identity: &Identity,
    transport: &TransportConfig,
    server: SocketAddr,
    bytes: u64,
    clients: usize,
) -> anyhow::Result<()> {
    let mut receiving = JoinSet::new();
    for _ in 0..clients {
        let endpoint = endpoint(identity, transport)?;
        receiving.spawn(async move {
            let connection = endpoint.connect(server, SERVER_NAME)?.await?;
            let (mut send, mut receive) = connection.open_bi().await?;
            send.write_all(&bytes.to_le_bytes()).await?;
            send.finish()?;
            let mut pieces = [const { Bytes::new() }; PIECES];
            let mut received = 0;
            while let Some(count) = receive.read_chunks(&mut pieces).await? {
                received += pieces[..count].iter().map(|piece| piece.len() as u64).sum::<u64>();
            }
            anyhow::ensure!(received == bytes, "{received} of {bytes} bytes came");
            connection.close(VarInt::from_u32(0), b"");
            endpoint.wait_idle().await;
            Ok(())
        });
    }
    while let Some(received) = receiving.join_next().await {
        received??;
    }
    Ok(())
}

async fn answer(mut send: quinn::SendStream, mut receive: quinn::RecvStream) -> anyhow::Result<()> {
    let mut asked = [0; 8];
    receive.read_exact(&mut asked).await?;
    let block = Bytes::from(vec![0x5a; WRITE_BYTES]);
    let mut left = u64::from_le_bytes(asked);
    while left > 0 {
        let now = left.min(WRITE_BYTES as u64);
        send.write_chunk(block.slice(..now as usize)).await?;
        left -= now;
    }
    send.finish()?;
    Ok(())
}

fn endpoint(identity: &Identity, transport: &TransportConfig) -> anyhow::Result<quinn::Endpoint> {
    let expect = Expect::peers_of(identity.name().organisation().clone());
    let mut server =
        quinn::ServerConfig::with_crypto(Arc::new(server_config(identity, expect.clone())?));
    server.transport_config(transport.quinn());
    let mut client = quinn::ClientConfig::new(Arc::new(client_config(identity, expect)?));
    client.transport_config(transport.quinn());
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a UDP socket")?;
    transport.size_buffers(&socket);
    let (config, runtime) = (transport.endpoint(), Arc::new(TokioRuntime));
    let mut endpoint = quinn::Endpoint::new(config, Some(server), socket, runtime)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}
