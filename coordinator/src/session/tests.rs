use super::*;
use futures_util::SinkExt;
use tokio::io::AsyncReadExt;

/// An inbound side over one end of a pipe, and the other end.
fn piped() -> (Inbound<tokio::io::DuplexStream>, WriteHalf<tokio::io::DuplexStream>, tokio::io::DuplexStream)
{
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(ours);
    let outbox = Arc::new(Outbox::default());
    (Inbound { reader, outbox, greeted: Arc::new(AtomicBool::new(false)), stranger_read: 0 }, writer, theirs)
}

#[tokio::test]
async fn frames_of_every_length_are_written_as_the_library_reads_them() {
    let (_inbound, mut writer, theirs) = piped();
    let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, COPY_BYTES_MAX, COPY_BYTES_MAX + 1, 300_000];
    let frames: Vec<_> = lengths.map(|length| Outgoing::Message(vec![7; length].into())).into();
    let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let write = async { write_frames(&mut writer, &frames).await.unwrap() };
    let read = async {
        for length in lengths {
            let message = client.next().await.unwrap().unwrap();
            assert_eq!(message.into_data().len(), length);
        }
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn a_stranger_may_not_send_more_than_a_hello() {
    let (mut inbound, _writer, mut theirs) = piped();
    theirs.write_all(&vec![0; STRANGER_BYTES_MAX + 1]).await.unwrap();
    let mut read = vec![0; STRANGER_BYTES_MAX + 1];
    assert!(inbound.read_exact(&mut read).await.is_err());
    inbound.greeted.store(true, Ordering::Relaxed);
    theirs.write_all(&[1]).await.unwrap();
    assert_eq!(inbound.read_u8().await.unwrap(), 1);
}

#[tokio::test]
async fn the_library_answers_pings_through_the_outbox() {
    let (inbound, _writer, theirs) = piped();
    let outbox = Arc::clone(&inbound.outbox);
    let mut server = WebSocketStream::from_raw_socket(inbound, Role::Server, None).await;
    let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    client.send(Message::Ping(Bytes::from_static(b"hi"))).await.unwrap();
    client.send(Message::Binary(Bytes::from_static(b"x"))).await.unwrap();
    assert!(matches!(server.next().await, Some(Ok(Message::Ping(_)))));
    assert!(matches!(server.next().await, Some(Ok(Message::Binary(_)))));
    let Next::Write(frames) = outbox.next().await else { panic!("a pong is to be written") };
    assert_eq!(frames, [Outgoing::Raw(Bytes::from_static(&[0x8a, 2, b'h', b'i']))]);
}

#[test]
fn the_upgrade_headers_are_read_as_lists_without_case() {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, "keep-alive, Upgrade".parse().unwrap());
    assert!(has_token(&headers, &CONNECTION, "upgrade"));
    assert!(!has_token(&headers, &CONNECTION, "up"));
    assert!(!has_token(&headers, &UPGRADE, "websocket"));
}
