ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers (id);
ALTER TABLE order_lines ADD FOREIGN KEY (customer_id, order_id) REFERENCES orders (customer_id, id);
ALTER TABLE order_lines ADD FOREIGN KEY (product_id) REFERENCES products (id);
CREATE INDEX orders_placed ON orders (placed);
CREATE INDEX order_lines_product ON order_lines (product_id);
