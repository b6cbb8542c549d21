// A webhook receiver with Express: verifies, answers at once, and handles each event once.
// npm install express standardwebhooks
const express = require("express");
const { Webhook } = require("standardwebhooks");

const secrets = process.env.WEBHOOK_SECRET.split(/\s+/); // during a rotation: the old and the new one
const seen = new Set(); // yours: a unique key in your database, written together with what you do

// The body as text: parsed and written again, it would have another signature.
const app = express();
app.post("/hook", express.text({ type: "*/*", limit: "1mb" }), (request, response) => {
  const verified = secrets.some((secret) => {
    try {
      return new Webhook(secret).verify(request.body, request.headers), true;
    } catch {
      return false;
    }
  });
  if (!verified) return response.sendStatus(401); // the bridge sends it again
  const event = JSON.parse(request.body);
  if (!seen.has(event.id)) {
    console.log(event.id, event.type, event.subject);
    seen.add(event.id);
  }
  response.sendStatus(204);
});
app.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
