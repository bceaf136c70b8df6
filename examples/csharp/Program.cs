// Allocates memory from an Isobar node, follows the pressure of its device, and gives the
// memory back.
//
//   dotnet run -- --url nats://127.0.0.1:4222 --device ram-0 --mib 64 --seconds 10
//
// --events N ends after so many changes of pressure, if they come before the time is up.
using System.Globalization;
using System.Text.Json;
using NATS.Client.Core;

string Argument(string name, string fallback)
{
    var at = Array.IndexOf(args, "--" + name);
    return at >= 0 && at + 1 < args.Length ? args[at + 1] : fallback;
}

long Number(string name, string fallback) => long.Parse(Argument(name, fallback), CultureInfo.InvariantCulture);

var device = Argument("device", "ram-0");
await using var nats = new NatsConnection(new NatsOpts { Url = Argument("url", "nats://127.0.0.1:4222"), Name = "isobar C# example" });

// Whoever subscribes first and reads the level then misses no change: the sequence tells
// which events are older than the answer.
await using var events = await nats.SubscribeCoreAsync<byte[]>($"memory.events.pressure.*.{device}");
await nats.PingAsync();
var pressure = (await Call<PressureReply>("get_pressure", new { DeviceId = device })).Pressure;
Console.WriteLine($"pressure of {pressure.DeviceId} is {pressure.PressureLevel}, sequence {pressure.Sequence}");

var grant = await Call<Grant>("allocate", new
{
    DeviceId = device,
    SizeBytes = Number("mib", "64") * 1024 * 1024,
    Purpose = "C# example",
    LeaseSeconds = 600,
});
if (grant.Status != "completed")
{
    throw new InvalidOperationException($"the request waits as operation {grant.OperationId}: {grant.Reason}");
}

// A process on the same machine maps the memory with the claim: see ../map.py.
Console.WriteLine($"granted {grant.Allocation!.SizeBytes} bytes of {grant.DeviceId} as {grant.AllocationId}, claim at {grant.Handle!.DataSocket}");

using var end = new CancellationTokenSource(TimeSpan.FromSeconds(Number("seconds", "10")));
var wanted = Number("events", "0");
var seen = 0;
try
{
    await foreach (var message in events.Msgs.ReadAllAsync(end.Token))
    {
        var change = JsonSerializer.Deserialize<Event>(message.Data!, Wire.Names)!;
        if (change.Kind != "pressure_changed" || change.Sequence <= pressure.Sequence)
        {
            continue;
        }

        var use = change.Data.UtilizationPercentage.ToString("F1", CultureInfo.InvariantCulture);
        Console.WriteLine($"pressure {change.Data.PreviousLevel} -> {change.Data.PressureLevel} because of {change.Data.Cause}, {use} % in use");
        if (++seen == wanted)
        {
            break;
        }
    }
}
catch (OperationCanceledException)
{
    // The time is up.
}

var freed = await Call<Freed>("deallocate", new { grant.AllocationId });
Console.WriteLine($"freed {freed.FreedBytes} bytes, confirmed: {(freed.Confirmed ? "true" : "false")}");

// Call gives a command and returns its data. The names of C# become those of the wire by the
// naming policy alone.
async Task<T> Call<T>(string action, object data)
{
    var request = JsonSerializer.SerializeToUtf8Bytes(new { Data = data }, Wire.Names);
    var message = await nats.RequestAsync<byte[], byte[]>($"memory.{action}", request);
    var reply = JsonSerializer.Deserialize<Reply<T>>(message.Data!, Wire.Names)!;
    return reply.Success ? reply.Data! : throw new InvalidOperationException($"{action}: {reply.ErrorCode}: {reply.ErrorMessage}");
}

internal static class Wire
{
    public static readonly JsonSerializerOptions Names = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };
}

internal sealed record Reply<T>(bool Success, T? Data, string? ErrorCode, string? ErrorMessage);

internal sealed record PressureReply(Pressure Pressure);

internal sealed record Pressure(string DeviceId, string PressureLevel, string PreviousLevel, string Cause, long Sequence, double UtilizationPercentage);

internal sealed record Event([property: System.Text.Json.Serialization.JsonPropertyName("event")] string Kind, long Sequence, Pressure Data);

internal sealed record Allocation(long SizeBytes);

internal sealed record Handle(string DataSocket);

internal sealed record Grant(string Status, string DeviceId, string AllocationId, Allocation? Allocation, Handle? Handle, string? OperationId, string? Reason);

internal sealed record Freed(long FreedBytes, bool Confirmed);
