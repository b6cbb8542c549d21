// A subscriber with amqplib (RabbitMQ).
// npm install amqplib
const amqp = require("amqplib");

const url = (process.env.BROKER_URL ?? "amqp://guest:guest@localhost:5672//").replace(/\/\/$/, "/%2F");
const seen = new Set(); // yours: a unique key in your database, written together with what you do

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("bridge.events", "topic", { durable: true });
  await channel.assertQueue("example.amqplib", { durable: true, arguments: { "x-queue-type": "quorum" } });
  await channel.bindQueue("example.amqplib", "bridge.events", "#");
  await channel.prefetch(100);
  await channel.consume("example.amqplib", (message) => {
    if (!seen.has(message.properties.messageId)) {
      const event = JSON.parse(message.content.toString());
      console.log(event.id, event.type, event.subject);
      seen.add(event.id);
    }
    channel.ack(message);
  });
}

main();
