//! Reads a backup from the operator's address, as slowly as a backup is read, so that a kill falls into it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Reads until the end, and sets `begun` once there is something to read: there may be no backup to be had.
///
/// # Errors
/// [`std::io::Error`] of the connection.
pub async fn read(admin: SocketAddr, begun: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut tcp = TcpStream::connect(admin).await?;
    let request = format!("GET /backup HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut first = [0; 12];
    tcp.read_exact(&mut first).await?;
    if &first != b"HTTP/1.1 200" {
        return Ok(());
    }
    begun.store(true, Ordering::Relaxed);
    let mut piece = [0; 4096];
    while tcp.read(&mut piece).await? > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
