//! tokio-postgres: pipelines and named statements and portals; what it does is printed, so that two servers can be compared.
use futures_util::future::{join_all, poll_fn};
use futures_util::{pin_mut, SinkExt, TryStreamExt};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Error, NoTls, SimpleQueryMessage};

async fn connect(dsn: &str) -> Result<(Client, mpsc::UnboundedReceiver<String>), Error> {
    let (client, mut connection) = tokio_postgres::connect(dsn, NoTls).await?;
    let (tell, hear) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                AsyncMessage::Notification(n) => drop(tell.send(format!("{} {}", n.channel(), n.payload()))),
                AsyncMessage::Notice(n) => println!("notice: {} {}", n.severity(), n.message()),
                _ => {}
            }
        }
    });
    Ok((client, hear))
}

fn failed<T>(name: &str, result: Result<T, Error>) {
    match result {
        Ok(_) => println!("{name}: no error"),
        Err(e) => match e.as_db_error() {
            Some(db) => println!("{name}: {} {}", db.code().code(), db.message()),
            None => println!("{name}: {e}"),
        },
    }
}

async fn values(c: &Client) -> Result<(), Error> {
    let row = c
        .query_one(
            "select $1::int2, $2::int4, $3::int8, $4::float4, $5::float8, $6::text, $7::bytea, $8::bool, $9::int4[], $10::text",
            &[&-7i16, &42i32, &9007199254740993i64, &1.5f32, &-0.1f64, &"žluťoučký 🐎 \t\\", &&[0u8, 1, 255][..], &true, &vec![Some(1), None, Some(3)], &None::<String>],
        )
        .await?;
    println!(
        "values: {} {} {} {} {} {} {:?} {} {:?} {:?}",
        row.get::<_, i16>(0), row.get::<_, i32>(1), row.get::<_, i64>(2), row.get::<_, f32>(3), row.get::<_, f64>(4), row.get::<_, &str>(5),
        row.get::<_, &[u8]>(6), row.get::<_, bool>(7), row.get::<_, Vec<Option<i32>>>(8), row.get::<_, Option<&str>>(9)
    );
    let at: SystemTime = c.query_one("select $1::timestamptz", &[&SystemTime::UNIX_EPOCH]).await?.get(0);
    println!("time: {}", at == SystemTime::UNIX_EPOCH);
    for m in c.simple_query("select 1 as a; select 'two' as b, null as c").await? {
        match m {
            SimpleQueryMessage::Row(r) => println!("row: {:?} {:?}", r.get(0), (1..r.len()).map(|i| r.get(i)).collect::<Vec<_>>()),
            SimpleQueryMessage::CommandComplete(n) => println!("complete: {n}"),
            _ => println!("description"),
        }
    }
    c.batch_execute("create type mood as enum ('sad', 'happy')").await?; // its oid is looked up
    let st = c.prepare("select $1::mood, $2::mood[]").await?;
    println!("enum: {:?} {:?}", st.params().iter().map(|t| t.name()).collect::<Vec<_>>(), st.columns().iter().map(|x| x.name()).collect::<Vec<_>>());
    drop(st);
    c.batch_execute("drop type mood").await
}

async fn transactions(c: &mut Client) -> Result<(), Error> {
    let mut tx = c.transaction().await?;
    tx.execute("insert into customers values ($1, $2)", &[&1i64, &"one"]).await?;
    let inner = tx.savepoint("a").await?;
    failed("duplicate", inner.execute("insert into customers values ($1, 'again')", &[&1i64]).await);
    failed("aborted", inner.query("select 1", &[]).await);
    inner.rollback().await?;
    tx.execute("update customers set name = name || '!' where id = $1", &[&1i64]).await?;
    tx.commit().await?;
    println!("committed: {}", c.query_one("select name from customers where id = $1", &[&1i64]).await?.get::<_, &str>(0));
    let tx = c.transaction().await?;
    tx.execute("delete from customers where id = $1", &[&1i64]).await?;
    drop(tx); // rolls back behind its back
    println!("kept: {}", c.query("select 1 from customers where id = $1", &[&1i64]).await?.len());
    failed("syntax", c.query("selec 1", &[]).await);
    failed("division", c.query("select 1/$1::int", &[&0i32]).await);
    failed("no table", c.query("select * from nowhere where id = $1", &[&1i64]).await);
    Ok(())
}

async fn pipelines(c: &Client) -> Result<(), Error> {
    let st = c.prepare("select $1::int4 / $2::int4").await?;
    let args: Vec<(i32, i32)> = (0..50).map(|i| (i * 10, i % 7)).collect();
    let all = join_all(args.iter().map(|(a, b)| {
        let st = &st;
        async move { c.query_one(st, &[a, b]).await }
    }))
    .await;
    println!("pipeline: {:?}", all.iter().map(|r| r.as_ref().map_or(-1, |row| row.get::<_, i32>(0))).collect::<Vec<_>>());
    for i in 0..300i32 {
        let n: i32 = c.query_one(&format!("select $1::int4 + {i}"), &[&i]).await?.get(0);
        assert_eq!(n, 2 * i);
    }
    let insert = c.prepare("insert into orders values ($1, $2, 1.5)").await?;
    join_all((0..100i64).map(|i| {
        let insert = &insert;
        async move { c.execute(insert, &[&7i64, &i]).await }
    }))
    .await;
    println!("orders: {}", c.query_one("select count(*) from orders where customer_id = $1", &[&7i64]).await?.get::<_, i64>(0));
    Ok(())
}

async fn copies(c: &Client) -> Result<(), Error> {
    let sink = c.copy_in::<_, &[u8]>("copy customers (id, name) from stdin").await?;
    pin_mut!(sink);
    sink.send(b"10\tten\n11\tel").await?;
    sink.send(b"even\n").await?;
    println!("copy in: {}", sink.finish().await?);
    println!("copied: {}", c.query_one("select name from customers where id = $1", &[&11i64]).await?.get::<_, &str>(0));
    {
        let sink = c.copy_in::<_, &[u8]>("copy notes from stdin").await?;
        pin_mut!(sink);
        sink.send(b"99\tlost\n").await?;
    } // dropped: CopyFail
    println!("given up: {}", c.query("select 1 from notes where id = 99", &[]).await?.len());
    let out = c.copy_out("copy (select g, repeat('x', g) from generate_series(1, 3) g) to stdout").await?;
    let chunks: Vec<_> = out.try_collect().await?;
    println!("copy out: {:?}", String::from_utf8_lossy(&chunks.concat()));
    Ok(())
}

async fn portals(c: &mut Client) -> Result<(), Error> {
    let tx = c.transaction().await?;
    let portal = tx.bind("select g from generate_series(1, $1::int4) g", &[&250i32]).await?;
    let mut sizes = vec![];
    loop {
        let rows = tx.query_portal(&portal, 100).await?;
        sizes.push(rows.len());
        if rows.len() < 100 {
            break;
        }
    }
    println!("portal: {sizes:?}");
    tx.commit().await
}

async fn cancels(c: &Client) -> Result<(), Error> {
    let token = c.cancel_token();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(token.cancel_query(NoTls).await);
    });
    failed("cancelled", c.query("select pg_sleep(60)", &[]).await);
    println!("after: {}", c.query_one("select 1", &[]).await?.get::<_, i32>(0));
    Ok(())
}

async fn notifications(c: &Client, dsn: &str, heard: &mut mpsc::UnboundedReceiver<String>) -> Result<(), Error> {
    c.batch_execute("listen news").await?;
    let (other, _) = connect(dsn).await?;
    other.execute("select pg_notify('news', $1)", &[&"číslo 1"]).await?;
    println!("notified: {:?}", tokio::time::timeout(Duration::from_secs(10), heard.recv()).await);
    c.batch_execute("unlisten *").await
}

async fn large(c: &Client) -> Result<(), Error> {
    let text = "ž".repeat(1 << 20);
    let row = c.query_one("select $1::text, length($1::text)", &[&text]).await?;
    println!("large: {} {}", row.get::<_, &str>(0) == text, row.get::<_, i32>(1));
    c.batch_execute("do $$ begin raise notice 'noticed'; end $$").await
}

async fn run(dsn: &str) -> Result<(), Error> {
    for part in ["values", "transactions", "pipelines", "copies", "portals", "cancels", "notifications", "large"] {
        let (mut c, mut heard) = connect(dsn).await?;
        let done = match part {
            "values" => values(&c).await,
            "transactions" => transactions(&mut c).await,
            "pipelines" => pipelines(&c).await,
            "copies" => copies(&c).await,
            "portals" => portals(&mut c).await,
            "cancels" => cancels(&c).await,
            "notifications" => notifications(&c, dsn, &mut heard).await,
            _ => large(&c).await,
        };
        if let Err(e) = done {
            println!("FAILED {part}: {e:?}");
        }
    }
    Ok(())
}

fn main() {
    let dsn = std::env::args().nth(1).expect("a connection URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    if let Err(e) = runtime.block_on(run(&dsn)) {
        println!("FAILED {e:?}");
        std::process::exit(1);
    }
}
