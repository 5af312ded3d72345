//! Connections: accepted up to a limit, served until the client or the server leaves.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{interval, sleep, timeout},
};

use super::{App, answer, patient::Patient};
use crate::registry::TICK;

/// How long answers that are being written may take once the server shall end.
const DRAIN: Duration = Duration::from_secs(5);
/// How long processes may take to end.
const END: Duration = Duration::from_secs(3);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 0\r\n\r\n";

/// Serves until `shutdown` comes; answers that are being written may end.
pub(crate) async fn run(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let room = Arc::new(Semaphore::new(app.limits.connections));
    let (leave, leaving) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    let mut ticks = interval(TICK);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = ticks.tick() => app.registry.tick(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => accept(stream, &app, &room, &leaving),
                // Out of descriptors: some will be closed.
                Err(_) => sleep(Duration::from_millis(20)).await,
            },
        }
    }
    drop(listener);
    app.registry.leave();
    // Nobody may be connected.
    let _ = leave.send(true);
    drop(leaving);
    drop(timeout(DRAIN, ended(&app, || room.available_permits() == app.limits.connections)).await);
    app.registry.kill_all();
    drop(timeout(END, ended(&app, || app.registry.is_empty())).await);
}

/// Until something is so.
async fn ended(app: &Arc<App>, is_so: impl Fn() -> bool) {
    while !is_so() {
        app.registry.tick();
        sleep(Duration::from_millis(10)).await;
    }
}

fn accept(
    stream: TcpStream,
    app: &Arc<App>,
    room: &Arc<Semaphore>,
    leaving: &watch::Receiver<bool>,
) {
    let Ok(permit) = room.clone().try_acquire_owned() else {
        // Whoever cannot be told at once is not told.
        drop(stream.try_write(FULL));
        return;
    };
    // Tokens are small and shall not wait for each other.
    drop(stream.set_nodelay(true));
    let (app, leaving) = (app.clone(), leaving.clone());
    tokio::spawn(async move {
        app.registry.metrics.connections.fetch_add(1, Ordering::Relaxed);
        serve(stream, &app, leaving).await;
        app.registry.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        drop(permit);
    });
}

async fn serve(stream: TcpStream, app: &Arc<App>, mut leaving: watch::Receiver<bool>) {
    let limits = app.limits;
    let io = TokioIo::new(Patient::new(stream, limits.body_time));
    let service = service_fn(|request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(answer(app, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    // What fails here is the client's connection, and nobody else can be told.
    tokio::select! {
        result = connection.as_mut() => drop(result),
        _ = leaving.changed() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}
