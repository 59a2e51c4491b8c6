//! The places for connections of strangers: few, and none for who says nothing.
//!
//! Each connection is an open file of this process, and those are few: strangers who took them all would keep control from
//! signing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time; more wait until one ends.
pub(super) const PLACES_MAX: usize = 256;

/// How long a connection may stand still: longer than control takes to answer anything, a large content's last sync too.
pub(super) const STILL_MAX: Duration = Duration::from_mins(5);

/// Listens for as many connections as there are places.
pub(super) struct Places {
    listener: TcpListener,
    free: Arc<Semaphore>,
    still_max: Duration,
}

/// A connection in its place, which is free again when it is dropped.
pub(super) struct Placed {
    stream: TcpStream,
    still: Pin<Box<Sleep>>,
    still_max: Duration,
    _place: OwnedSemaphorePermit,
}

impl Places {
    /// Listens with `places` for connections that stand still for `still_max` at most.
    pub(super) fn new(listener: TcpListener, places: usize, still_max: Duration) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(places)), still_max }
    }
}

impl Listener for Places {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        // It is never closed.
        let place = Arc::clone(&self.free).acquire_owned().await.expect("a semaphore that is open");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let still = Box::pin(sleep(self.still_max));
        (Placed { stream, still, still_max: self.still_max, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Placed {
    /// Returns what came of moving bytes; an error if none have moved for too long.
    fn moved<T>(
        &mut self,
        context: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if moved.is_pending() {
            ready!(self.still.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let until = Instant::now() + self.still_max;
        self.still.as_mut().reset(until);
        moved
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(context, into);
        self.moved(context, moved)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.moved(context, moved)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn two_places(still_max: Duration) -> (Places, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (Places::new(listener, 2, still_max), address)
    }

    // T9, T23
    #[tokio::test]
    async fn no_more_are_let_in_than_there_are_places_until_one_leaves() {
        let (mut places, address) = two_places(STILL_MAX).await;
        let mut callers = Vec::new();
        for _ in 0..3 {
            callers.push(TcpStream::connect(address).await.unwrap());
        }
        let (first, _second) = (places.accept().await, places.accept().await);
        assert_eq!(places.free.available_permits(), 0);
        let mut third = Box::pin(places.accept());
        // Whoever could be let in would be by now: that connection was made before.
        for _ in 0..100 {
            assert!(by_now(third.as_mut()).await.is_none());
        }
        drop(first);
        third.await;
    }

    // T9
    #[tokio::test]
    async fn whoever_says_nothing_leaves_the_place_to_others() {
        let (mut places, address) = two_places(Duration::from_millis(50)).await;
        let mut caller = TcpStream::connect(address).await.unwrap();
        let (mut placed, _) = places.accept().await;
        caller.write_all(b"GET").await.unwrap();
        let mut said = [0; 3];
        placed.read_exact(&mut said).await.unwrap();
        let error = placed.read_exact(&mut said).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(placed);
        assert_eq!(places.free.available_permits(), 2);
    }

    /// Returns what a future has come to by now.
    async fn by_now<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        tokio::task::yield_now().await;
        let look = |context: &mut Context<'_>| match Pin::new(&mut future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        };
        std::future::poll_fn(look).await
    }
}
