CREATE TABLE customers (
    id      bigint PRIMARY KEY,
    name    text NOT NULL,
    email   text NOT NULL,
    city    text NOT NULL,
    country text NOT NULL,
    joined  date NOT NULL
);
CREATE TABLE products (
    id          bigint PRIMARY KEY,
    name        text NOT NULL,
    description text NOT NULL,
    category    text NOT NULL,
    price       numeric(10,2) NOT NULL,
    stock       integer NOT NULL
);
CREATE TABLE orders (
    customer_id bigint NOT NULL,
    id          bigint NOT NULL,
    status      text NOT NULL,
    total       numeric(12,2) NOT NULL,
    placed      timestamptz NOT NULL,
    note        text,
    PRIMARY KEY (customer_id, id)
);
CREATE TABLE order_lines (
    customer_id bigint NOT NULL,
    order_id    bigint NOT NULL,
    line        smallint NOT NULL,
    product_id  bigint NOT NULL,
    quantity    integer NOT NULL,
    price       numeric(10,2) NOT NULL,
    PRIMARY KEY (customer_id, order_id, line)
);
ALTER TABLE customers REPLICA IDENTITY FULL;
ALTER TABLE products REPLICA IDENTITY FULL;
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE order_lines REPLICA IDENTITY FULL;
